"use strict";
// The keyboard: the timeline is one stop of Tab, and arrow keys go from item to item in it.

let tabStop = null;

// The mark that Tab reaches: that of the current item, or one that is in view.
function placeTabStop() {
  let stop = null;
  let any = null;
  for (const lane of lanes) {
    if (!lane.marks || lane.machine.isFolded) continue;
    lane.marks.each(function consider(mark) {
      if (view.current && view.current.lane === lane && mark.items.some((item) => item.index === view.current.index)) stop = this;
      else if (!any && mark.x1 >= 0 && mark.x0 <= view.width) any = this;
    });
  }
  stop = stop || any;
  if (tabStop && tabStop !== stop) tabStop.setAttribute("tabindex", -1);
  if (stop && tabStop !== stop) stop.setAttribute("tabindex", 0);
  tabStop = stop;
  return stop;
}

// Marks come and go as one zooms: the focus stays with the item.
function drawKeepingFocus(draw) {
  const had = document.activeElement && document.activeElement.closest("g.mark");
  draw();
  const stop = placeTabStop();
  if (had && document.activeElement !== stop) (stop || document.getElementById("overview")).focus({ preventScroll: true });
  markPinned();
}

function focusItem(lane, index) {
  view.current = { lane, index };
  if (lane.machine.isFolded) lane.machine.fold(false);
  reveal(lane.items[index].t, lane.items[index].until);
  changes.call("draw");
  const stop = placeTabStop();
  if (!stop) return;
  stop.focus({ preventScroll: true });
  lane.row.scrollIntoView({ block: "nearest" });
}

function goAlong(mark, by) {
  const all = marksOf(mark.lane, true).sort((a, b) => a.x0 - b.x0);
  const at = all.findIndex((other) => other.items.includes(mark.items[0]));
  const next = all[by === -Infinity ? 0 : by === Infinity ? all.length - 1 : at + by];
  if (next) focusItem(mark.lane, next.items[0].index);
}

// To the lane above or below, to what there was at that time.
function goAcross(mark, by) {
  const open = lanes.filter((lane) => !lane.machine.isFolded && lane.items.length);
  const lane = open[open.indexOf(mark.lane) + by];
  if (lane) focusItem(lane, nearestIn(lane, mark.items[0].t));
}

// The item that was there at a moment, or the nearest one; of several that are as near the worst.
function nearestIn(lane, t) {
  const near = (view.to - view.from) / 100;
  const ranks = lane.items.map((item) => {
    const away = Math.max(item.t - t, t - item.until, 0);
    return away > near ? away : away / 2 - near * TONES.indexOf(item.tone);
  });
  return d3.minIndex(ranks);
}

// Its lanes, unfolded and in view; of the only one all that stands above them as well.
function showMachine(machine) {
  if (machine.isFolded) machine.fold(false);
  const top = machines.length > 1 ? machine.group : document.getElementById("timeline");
  top.scrollIntoView({ behavior: smoothly() });
}

let nextFailure = 0;

function goToFailure() {
  if (!failures.length) return;
  const { machine, at } = failures[nextFailure % failures.length];
  nextFailure += 1;
  lookAt(at);
  showMachine(machine);
  const lane = machine.lanes.find((one) => one.id === "waits" && one.items.length) || machine.lanes.find((one) => one.items.length);
  if (lane && document.activeElement && document.activeElement.closest("g.mark")) focusItem(lane, nearestIn(lane, at));
}

// Around the item that has the focus, so that it is not lost; else around the cursor.
function zoomAtFocus(factor) {
  const mark = document.activeElement.closest("g.mark");
  if (!mark) return zoomBy(factor);
  const { x0, x1 } = d3.select(mark).datum();
  return zoomBy(factor, momentAt((Math.max(x0, 0) + Math.min(x1, view.width)) / 2));
}

function openHelp() {
  const help = document.getElementById("help");
  if (!help.open) help.showModal();
}

const ANYWHERE = {
  "+": () => zoomAtFocus(2), "=": () => zoomAtFocus(2), "-": () => zoomAtFocus(0.5), 0: () => show(...extent), f: goToFailure,
  "/": () => document.getElementById("search").focus(), "?": openHelp,
};

function onMarkKey(event, mark) {
  const acts = {
    ArrowRight: () => goAlong(mark, 1), ArrowLeft: () => goAlong(mark, -1),
    ArrowDown: () => goAcross(mark, 1), ArrowUp: () => goAcross(mark, -1),
    Home: () => goAlong(mark, -Infinity), End: () => goAlong(mark, Infinity),
    Enter: () => choose(mark), " ": () => choose(mark), Escape: unpin,
  };
  const act = acts[event.key];
  if (act && !event.shiftKey) act();
  return Boolean(act) && !event.shiftKey;
}

function onOverviewKey(key) {
  const size = view.to - view.from;
  const acts = {
    ArrowLeft: () => pan(-0.1), ArrowRight: () => pan(0.1), ArrowDown: () => pan(-0.1), ArrowUp: () => pan(0.1),
    PageDown: () => pan(-1), PageUp: () => pan(1),
    Home: () => show(extent[0], extent[0] + size), End: () => show(extent[1] - size, extent[1]),
    Enter: () => moveCursor((view.from + view.to) / 2),
  };
  if (acts[key]) acts[key]();
  return key in acts;
}

function choose(mark) {
  const [item] = mark.items;
  moveCursor(item.t);
  const log = logOfLane(mark.lane);
  if (log && item.line !== null && item.line !== undefined) paneOf(log).goToLine(item.line);
  pin(mark);
}

function buildKeys() {
  const single = document.getElementById("single-keys");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
    if (event.target.closest("input, textarea, select, dialog")) return;
    const inChart = Boolean(event.target.closest("#timeline"));
    const mark = event.target.closest("g.mark");
    if (mark && onMarkKey(event, d3.select(mark).datum())) event.preventDefault();
    else if (inChart && event.shiftKey && event.key.startsWith("Arrow")) pan(event.key === "ArrowLeft" ? -0.2 : event.key === "ArrowRight" ? 0.2 : 0);
    else if (event.target.id === "overview" && onOverviewKey(event.key)) event.preventDefault();
    else if (event.key === "Escape") unpin();
    else if (Object.hasOwn(ANYWHERE, event.key) && (single.checked || inChart)) ANYWHERE[event.key]();
    else return;
    event.preventDefault();
  });
  const buttons = {
    "zoom-in": () => zoomBy(2), "zoom-out": () => zoomBy(0.5), earlier: () => pan(-0.25), later: () => pan(0.25),
    fit: () => show(...extent), "to-failure": goToFailure, "help-button": openHelp,
  };
  for (const [id, act] of Object.entries(buttons)) document.getElementById(id).addEventListener("click", act);
  document.getElementById("to-failure").hidden = !failures.length;
}
