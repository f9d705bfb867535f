"use strict";
// Zooming and panning by mouse, wheel and touch; and the width to draw in, on a screen and on paper.

const chart = document.getElementById("chart");
const PAPER = 690; // CSS pixels: the chart's width on paper, which is scaled to the sheet
const zoom = d3.zoom();
let isPrinting = false;

function buildMoving() {
  zoom.scaleExtent([1, (extent[1] - extent[0]) / SHORTEST])
    .filter(isGesture)
    .wheelDelta((event) => -event.deltaY * (event.deltaMode ? 0.05 : Math.abs(event.deltaY) < 40 ? 0.02 : 0.005))
    .on("zoom", ({ sourceEvent, transform }) => {
      if (!sourceEvent) return;
      const whole = wholeScale();
      show(whole.invert(transform.invertX(view.left)), whole.invert(transform.invertX(view.left + view.width)));
    });
  d3.select("#machines").call(zoom).on("dblclick.zoom", null);
  document.getElementById("machines").addEventListener("wheel", panByWheel, { passive: false });
  panByFinger(document.getElementById("machines"));
  new ResizeObserver(() => { if (!isPrinting) fitWidth(); }).observe(document.getElementById("axis"));
  addEventListener("beforeprint", () => forPaper(true));
  addEventListener("afterprint", () => forPaper(false));
  fitWidth();
}

// The wheel alone scrolls the page, one finger too; two fingers and the wheel with Ctrl zoom.
function isGesture(event) {
  if (event.target.closest("button, a")) return false;
  if (event.type === "wheel") return event.ctrlKey || event.metaKey;
  if (event.type.startsWith("touch")) return event.touches.length > 1;
  return !event.button;
}

function wholeScale() {
  return d3.scaleLinear(extent, [view.left, view.left + view.width]);
}

function fitWidth() {
  const box = document.getElementById("axis").getBoundingClientRect();
  if (!box.width) return;
  view.left = box.left - document.getElementById("machines").getBoundingClientRect().left;
  view.width = box.width;
  redraw();
}

// D3 keeps a transform of its own: what the view is by other means, it is told.
function syncZoom() {
  const node = document.getElementById("machines");
  const bounds = [[view.left, 0], [view.left + view.width, 1]];
  zoom.extent(bounds).translateExtent(bounds);
  const scale = (extent[1] - extent[0]) / (view.to - view.from);
  const shift = view.left - wholeScale()(view.from) * scale;
  node.__zoom = d3.zoomIdentity.translate(shift, 0).scale(scale);
}

function panByWheel(event) {
  if (event.ctrlKey || event.metaKey) return;
  const by = event.shiftKey ? event.deltaX || event.deltaY : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
  if (!by) return;
  event.preventDefault();
  pan((by * (event.deltaMode ? 20 : 1)) / view.width);
}

// One finger that moves sideways: the browser has the other direction, to scroll the page.
function panByFinger(node) {
  let last = null;
  node.addEventListener("pointerdown", (event) => {
    last = event.pointerType === "touch" && event.isPrimary ? event.clientX : null;
  });
  node.addEventListener("pointermove", (event) => {
    if (last === null || event.pointerType !== "touch" || !event.isPrimary) return;
    pan((last - event.clientX) / view.width);
    last = event.clientX;
  });
  for (const end of ["pointerup", "pointercancel"]) node.addEventListener(end, () => { last = null; });
}

function forPaper(isPaper) {
  isPrinting = isPaper;
  for (const details of document.querySelectorAll("details")) {
    if (isPaper) details.dataset.wasOpen = details.open;
    details.open = isPaper || details.dataset.wasOpen === "true";
  }
  if (isPaper) {
    view.width = PAPER - 7 * REM;
    changes.call("draw");
  } else {
    fitWidth();
  }
}
