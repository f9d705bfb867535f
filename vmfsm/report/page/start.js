"use strict";
// Puts it all together, once the page is there.

// Pointing at a mark shows its details, a click pins them; a click beside marks moves the cursor.
function buildPointing() {
  const parent = document.getElementById("machines");
  const markOf = (event) => {
    const node = event.target.closest("g.mark");
    return node ? d3.select(node).datum() : null;
  };
  parent.addEventListener("pointerover", (event) => {
    const mark = markOf(event);
    if (mark) glance(mark);
  });
  const plots = document.getElementById("chart");
  plots.addEventListener("pointermove", (event) => {
    const t = momentAt(event.clientX - document.getElementById("axis").getBoundingClientRect().left);
    readOut("pointer-readout", "Here", t >= view.from && t <= view.to && event.pointerType === "mouse" ? t : null);
  });
  plots.addEventListener("pointerleave", () => readOut("pointer-readout", "Here", null));
  parent.addEventListener("focusin", (event) => {
    const mark = markOf(event);
    if (!mark) return;
    const holds = view.current && view.current.lane === mark.lane && mark.items.some((item) => item.index === view.current.index);
    if (!holds) view.current = { lane: mark.lane, index: mark.items[0].index };
    glance(mark);
  });
  parent.addEventListener("click", (event) => {
    const mark = markOf(event);
    if (mark) {
      view.current = { lane: mark.lane, index: mark.items[0].index };
      choose(mark);
    } else if (event.target.closest("svg")) {
      moveCursor(momentAt(event.clientX - document.getElementById("axis").getBoundingClientRect().left));
      unpin();
    }
    placeTabStop();
  });
  document.querySelector(".strip.axis").addEventListener("click", (event) => {
    moveCursor(momentAt(event.clientX - document.getElementById("axis").getBoundingClientRect().left));
  });
}

// Links that stand for a moment (clues, times in tables): the axis, the log and the details go there.
function followLink(event) {
  const link = event.target.closest("a[data-at], a[data-log], a[data-group]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link.dataset.group) {
    const chosen = machines.find((one) => one.key === link.dataset.group);
    if (chosen.diagnosis.at !== null) lookAt(chosen.diagnosis.at);
    showMachine(chosen);
    chosen.group.querySelector("button").focus({ preventScroll: true });
    return;
  }
  const about = link.closest("[data-machine], .machine");
  const key = link.dataset.machine || (about && about.id.replace("about-", ""));
  const machine = machines.find((one) => one.key === key) || machines[0];
  const t = link.dataset.at === undefined ? null : Number(link.dataset.at);
  const lane = machine.lanes.find((one) => one.id === link.dataset.lane && one.items.length);
  const log = logOf(machine, link.dataset.log);
  const line = link.dataset.line === undefined ? null : Number(link.dataset.line);
  if (t !== null) lookAt(t);
  if (t !== null && lane) {
    const own = lane.items.find((item) => line !== null && item.line === line);
    const mark = { lane, items: [own || lane.items[nearestIn(lane, t)]] };
    focusItem(lane, mark.items[0].index);
    pin(mark);
    if (log && line !== null) paneOf(log).goToLine(line);
  } else if (t === null && log) {
    paneOf(log).section.scrollIntoView({ block: "center", behavior: smoothly() });
    paneOf(log).rows.focus({ preventScroll: true });
    return;
  }
  bringIntoView(lane, log);
}

// The place on the axis and the log, where the screen has room for both; else the log, which says more.
function bringIntoView(lane, log) {
  const timeline = document.getElementById("timeline");
  if (!lane || !log) {
    timeline.scrollIntoView({ behavior: smoothly() });
    return;
  }
  const { section } = paneOf(log);
  const end = section.getBoundingClientRect().bottom + document.querySelector(".strip.axis").offsetHeight;
  const both = [timeline, lane.row].find((node) => end - node.getBoundingClientRect().top <= innerHeight);
  if (both) both.scrollIntoView({ behavior: smoothly() });
  else section.scrollIntoView({ block: "end", behavior: smoothly() });
}

function buildCopying() {
  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.addEventListener("click", async () => {
      const text = machines.find((one) => one.key === button.dataset.copies).command;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(document.getElementById(`command-${button.dataset.copies}`));
        button.textContent = "Selected: press Ctrl C";
      }
    });
  }
}

function draw() {
  syncZoom();
  for (const lane of lanes) if (!lane.machine.isFolded) drawLane(lane);
  for (const machine of machines) if (!machine.isFolded) drawHolds(machine);
  drawAxis();
  drawOverview();
  drawOverlays();
}

for (const node of document.querySelectorAll(".drawn")) node.hidden = false;
document.documentElement.dataset.drawn = "";
if (machines.length) {
  buildPatterns(document.body);
  buildLanes(document.getElementById("machines"));
  buildOverview();
  buildLegend(document.querySelector(".legend"));
  changes.on("draw", () => drawKeepingFocus(draw));
  changes.on("cursor", () => { drawOverlays(); readOut("cursor-readout", "Cursor", view.cursor); });
  buildMoving();
  buildPointing();
  buildKeys();
  buildLogs(document.getElementById("log-panes"));
  buildSearch();
  buildCopying();
  hint();
  document.addEventListener("click", followLink);
  if (failures.length) moveCursor(failures[0].at);
  else for (const pane of panes) pane.scrollTo(Math.max(0, pane.entries.length - 1));
} else {
  for (const node of document.querySelectorAll(".drawn")) node.hidden = true;
}
