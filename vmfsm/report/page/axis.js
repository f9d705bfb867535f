"use strict";
// What all lanes have in common: the axis, the overview of all the time, and lines through all lanes.

const axisHeight = 2.9 * REM;
const overviewHeight = 2.2 * REM;
const brush = d3.brushX();

function drawAxis() {
  const svg = d3.select("#axis").attr("height", axisHeight).attr("viewBox", `0 0 ${view.width} ${axisHeight}`)
    .attr("preserveAspectRatio", "none");
  const scale = d3.scaleLinear([view.from, view.to], [0, view.width]);
  const { ticks, write, base } = ticksOf([view.from, view.to], Math.max(2, view.width / (6.5 * REM)));
  const axis = d3.axisBottom(scale).tickValues(ticks).tickFormat(write).tickSizeOuter(0);
  svg.selectAll("g").data([0]).join("g").attr("transform", `translate(0,${1.35 * REM})`).call(axis)
    .attr("font-size", null).attr("font-family", null);
  svg.selectAll(".base").data(base === null ? [] : [base]).join("text").attr("class", "base")
    .attr("x", 2).attr("y", 1.05 * REM).text((t) => `after ${moment(t)}:`);
}

// Lines, areas and flags: HTML above the drawings, so that none has to know of the others.
function drawOverlays() {
  const overlays = document.getElementById("overlays");
  const flags = document.getElementById("flags");
  overlays.replaceChildren();
  flags.replaceChildren();
  const shown = failures.filter(({ at }) => xOf(at) >= -1 && xOf(at) <= view.width + 1);
  for (const { at } of shown) overlays.append(lineAt("failure-line", xOf(at)));
  for (const { x, text } of flagsOf(shown)) {
    const flag = element("div", { class: "flag" }, text);
    if (x > view.width / 2) flag.style.right = `${100 - (100 * x) / view.width}%`;
    else flag.style.left = `${(100 * x) / view.width}%`;
    flags.append(flag);
  }
  if (view.cursor !== null) {
    const x = xOf(view.cursor);
    if (x >= 0 && x <= view.width) overlays.append(lineAt("cursor-line", x));
  }
}

// A flag for each failure; those that would lie on one another have one, which says the first of them.
function flagsOf(shown) {
  const flags = [];
  for (const { machine, at } of d3.sort(shown, (failure) => failure.at)) {
    const x = xOf(at);
    const name = machines.length > 1 ? `${machine.title}: ` : "";
    const text = plain(`✕ ${name}${machine.diagnosis.kind}, ${moment(at)}`);
    const room = Math.min((text.length + 14) * LETTER * 1.1, 0.45 * view.width);
    const [left, right] = x > view.width / 2 ? [x - room, x] : [x, x + room];
    const before = flags[flags.length - 1];
    if (before && left <= before.right) before.more += 1;
    else flags.push({ x, text, right, more: 0 });
  }
  return flags.map(({ x, text, more }) => ({ x, text: more ? `${text} (and ${more} more)` : text }));
}

function lineAt(name, x) {
  const line = element("div", { class: name });
  line.style.left = `${(100 * x) / view.width}%`;
  return line;
}

// While a machine is held its deadlines stand still: that time is shaded through all its lanes.
function drawHolds(machine) {
  machine.holds.replaceChildren();
  for (const lane of machine.lanes) {
    if (lane.shape === "points") continue;
    for (const item of lane.items) {
      if (item.tone !== "held" || item.end === undefined) continue;
      const from = Math.max(0, xOf(item.t));
      const to = Math.min(view.width, xOf(item.until));
      if (to <= from) continue;
      const area = lineAt("held-time", from);
      area.style.width = `${(100 * (to - from)) / view.width}%`;
      machine.holds.append(area);
    }
  }
}

// How much there was at all, and which part is looked at.
function buildOverview() {
  const svg = d3.select("#overview").attr("height", overviewHeight);
  svg.append("path").attr("class", "amount");
  svg.append("g").attr("class", "failures");
  svg.append("rect").attr("class", "frame");
  svg.append("g").attr("class", "brush");
  brush.on("brush end", (event) => {
    if (!event.sourceEvent) return;
    if (event.selection) {
      const whole = d3.scaleLinear(extent, [0, view.width]);
      show(whole.invert(event.selection[0]), whole.invert(event.selection[1]));
    } else if (event.type === "end") {
      const t = d3.scaleLinear(extent, [0, view.width]).invert(d3.pointer(event.sourceEvent, svg.node())[0]);
      const size = view.to - view.from;
      show(t - size / 2, t + size / 2);
    }
  });
}

const amounts = (() => {
  const counts = new Array(240).fill(0);
  const columnOf = (t) => Math.min(239, Math.max(0, Math.floor(((t - extent[0]) / (extent[1] - extent[0])) * 240)));
  for (const lane of lanes) {
    if (lane.density) {
      lane.density.counts.forEach((count, n) => { counts[columnOf(lane.density.begin + (n + 0.5) * lane.density.step)] += count; });
    } else {
      for (const item of lane.items) counts[columnOf(item.t)] += 1;
    }
  }
  return counts.map(Math.sqrt);
})();

function drawOverview() {
  const svg = d3.select("#overview");
  const width = view.width;
  const scale = d3.scaleLinear(extent, [0, width]);
  const height = d3.scaleLinear([0, d3.max(amounts) || 1], [0, overviewHeight - 6]);
  const shape = d3.path();
  amounts.forEach((amount, n) => {
    if (amount) shape.rect((n * width) / 240, overviewHeight - 1 - height(amount), width / 240 - 0.5, height(amount));
  });
  svg.select(".amount").attr("d", shape.toString());
  svg.select(".frame").attr("x", 0.5).attr("y", 0.5).attr("width", width - 1).attr("height", overviewHeight - 1);
  svg.select(".failures").selectAll("line").data(failures).join("line").attr("class", "failure")
    .attr("x1", ({ at }) => scale(at)).attr("x2", ({ at }) => scale(at)).attr("y1", 0).attr("y2", overviewHeight);
  brush.extent([[0, 0], [width, overviewHeight]]);
  const middle = scale((view.from + view.to) / 2);
  const half = Math.max(2, (scale(view.to) - scale(view.from)) / 2);
  svg.select(".brush").call(brush).call(brush.move, [Math.max(0, middle - half), Math.min(width, middle + half)]);
  const share = (view.from + view.to - 2 * extent[0]) / (2 * (extent[1] - extent[0]));
  svg.attr("aria-valuenow", Math.round(100 * share)).attr("aria-valuetext", `${moment(view.from)} to ${moment(view.to)}`);
}

function readOut(id, name, t) {
  const text = t === null ? "" : `${name}: ${momentAndClock(t, view.to - view.from < 1 ? 6 : 3)}`;
  document.getElementById(id).textContent = text;
}
