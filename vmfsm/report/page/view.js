"use strict";
// What is looked at: a part of the time axis, a moment (the cursor), an item. All that changes it is here;
// all that shows it listens.

const view = {
  from: extent[0],
  to: extent[1],
  width: 800, // of the plots, in CSS pixels
  left: 0, // where they begin in the chart
  cursor: null, // seconds
  current: null, // { lane, index }: the item with the keyboard's attention
};

const SHORTEST = 5e-6;

// "draw": other part, width or folding; "cursor": other moment; "item": other item.
const changes = d3.dispatch("draw", "cursor", "item");

function xOf(t) {
  return ((t - view.from) / (view.to - view.from)) * view.width;
}

function momentAt(x) {
  return view.from + (x / view.width) * (view.to - view.from);
}

let isDrawing = false;

// At most once a frame, however often something changes.
function redraw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    changes.call("draw");
  });
}

// Show the time from `from` to `to`, as far as there is any.
function show(from, to) {
  const size = Math.min(Math.max(to - from, SHORTEST), extent[1] - extent[0]);
  const middle = (from + to) / 2;
  const begin = Math.min(Math.max(middle - size / 2, extent[0]), extent[1] - size);
  view.from = begin;
  view.to = begin + size;
  redraw();
}

// `around`: the moment that stays where it is, where it is in view.
function zoomBy(factor, around = view.cursor) {
  const size = (view.to - view.from) / factor;
  const inside = around !== null && around > view.from && around < view.to;
  const fixed = inside ? around : (view.from + view.to) / 2;
  const share = (fixed - view.from) / (view.to - view.from);
  show(fixed - share * size, fixed + (1 - share) * size);
}

function pan(share) {
  const by = share * (view.to - view.from);
  show(view.from + by, view.to + by);
}

// Have a moment, or some of the time from it to another, in view, without another zoom where that can be.
function reveal(t, until = t) {
  const size = view.to - view.from;
  if (until < view.from + size * 0.03 || t > view.to - size * 0.03) show(t - size / 2, t + size / 2);
}

function moveCursor(t) {
  view.cursor = t;
  changes.call("cursor");
}

// A moment with what is around it: what a clue, or the failure, is looked at in.
function lookAt(t) {
  const size = Math.min(view.to - view.from, (extent[1] - extent[0]) / 4);
  show(t - size / 2, t + size / 2);
  moveCursor(t);
}
