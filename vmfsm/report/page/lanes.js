"use strict";
// The lanes: one drawing each, of marks and of densities, in foldable groups, one for each machine.

const REM = parseFloat(getComputedStyle(document.documentElement).fontSize);
const ROW = 1.25 * REM; // the height of a row of marks
const DENSITY = 1.4 * REM;
const LETTER = 0.42 * REM; // about how wide a letter of a label is

// Colour is never the only sign.
const SHAPES = {
  neutral: d3.symbolCircle, good: d3.symbolSquare, busy: d3.symbolCircle,
  held: d3.symbolDiamond, warn: d3.symbolTriangle, bad: d3.symbolCross,
};
const HATCHED = ["held", "warn", "bad"];
const symbols = Object.fromEntries(
  TONES.map((tone) => [tone, d3.symbol(SHAPES[tone], tone === "bad" ? 90 : tone === "neutral" ? 42 : 70)()]),
);

function buildLanes(parent) {
  for (const machine of machines) {
    const id = `lanes-${machine.key}`;
    const body = element("div", { id, class: "group-body" });
    const button = element("button", { type: "button", "aria-expanded": "true", "aria-controls": id });
    const title = element("bdi", {}, visible(machine.title));
    const arrow = element("span", { "aria-hidden": "true" }, "▾ ");
    button.append(arrow, title);
    machine.fold = (isFolded) => {
      button.setAttribute("aria-expanded", !isFolded);
      arrow.textContent = isFolded ? "▸ " : "▾ ";
      body.hidden = isFolded;
      machine.isFolded = isFolded;
      redraw();
    };
    button.addEventListener("click", () => machine.fold(!machine.isFolded));
    const state = element("span", { class: "state" }, `${machine.diagnosis.outcome}: ${machine.diagnosis.kind}`);
    const head = element("div", { class: "group-head" }, element("h3", {}, button), state);
    if (machine.test && !report.test) head.append(element("bdi", { class: "test" }, visible(machine.test)));
    machine.holds = element("div", { class: "holds", "aria-hidden": "true" });
    machine.group = element("div", { class: "group", "data-machine": machine.key }, head, body, machine.holds);
    for (const lane of machine.lanes) body.append(buildLane(lane));
    parent.append(machine.group);
  }
}

function buildLane(lane) {
  lane.rowHeight = lane.rows > 8 ? ROW * 0.6 : ROW;
  lane.height = 4 + lane.rows * lane.rowHeight + (lane.isDense ? DENSITY : 0);
  const title = element("div", { class: "lane-title" }, visible(lane.title));
  if (lane.left_out) title.append(` (${lane.items.length.toLocaleString("en")} of ${lane.total.toLocaleString("en")})`);
  const svg = d3.create("svg:svg").attr("role", "group").attr("aria-label", plain(lane.name))
    .attr("height", lane.height).attr("preserveAspectRatio", "none");
  lane.densityPath = svg.append("path").attr("class", "density");
  lane.drawing = svg.append("g");
  lane.row = element("div", { class: "lane", "data-lane": lane.id }, title, svg.node());
  return lane.row;
}

function drawLane(lane) {
  d3.select(lane.drawing.node().ownerSVGElement).attr("viewBox", `0 0 ${view.width} ${lane.height}`);
  if (lane.isDense) lane.densityPath.attr("d", densityShape(lane));
  const marks = marksOf(lane);
  marks.sort((a, b) => TONES.indexOf(a.items[0].tone) - TONES.indexOf(b.items[0].tone));
  lane.marks = lane.drawing.selectAll("g.mark").data(marks, keyOf).join(enterMarks);
  lane.marks.each(placeMark);
}

function enterMarks(entering) {
  const groups = entering.append("g")
    .attr("class", (mark) => classesOf(mark))
    .attr("role", "button").attr("tabindex", -1);
  groups.each(function make(mark) {
    const group = d3.select(this);
    const [item] = mark.items;
    if (mark.isPoint && mark.items.length === 1) {
      addPoint(group, item.tone);
    } else {
      const height = mark.lane.rowHeight - 3;
      group.append("rect").attr("class", "area").attr("height", height);
      if (HATCHED.includes(item.tone)) group.append("rect").attr("class", "hatch").attr("height", height);
    }
  });
  return groups;
}

function addPoint(group, tone) {
  const path = group.append("path").attr("class", "point").attr("d", symbols[tone]);
  if (tone === "bad") path.attr("transform", "rotate(45)");
}

function classesOf(mark) {
  const [item] = mark.items;
  const kind = mark.items.length > 1 ? "merged" : item.end === null ? "open" : mark.isPoint ? "single" : "span";
  return `mark tone-${item.tone} ${kind}`;
}

// Where a mark is, in its lane: it never reaches far out of the drawing, where numbers would lose their precision.
function placeMark(mark) {
  const [item] = mark.items;
  if (this.namedAfter !== mark.items.length) {
    this.namedAfter = mark.items.length;
    this.setAttribute("aria-label", nameOf(mark));
  }
  const top = 2 + item.row * mark.lane.rowHeight;
  const height = mark.lane.rowHeight - 3;
  if (mark.isPoint && mark.items.length === 1) {
    this.setAttribute("transform", `translate(${mark.x0.toFixed(1)},${top + height / 2})`);
    return;
  }
  const around = mark.isPoint ? 4 : 0;
  const x0 = Math.min(Math.max(mark.x0 - around, -5), view.width + 2);
  const x1 = Math.min(Math.max(mark.x1 + around, x0 + 3), view.width + 5);
  this.setAttribute("transform", `translate(${x0.toFixed(1)},${top})`);
  const width = (x1 - x0).toFixed(1);
  for (const box of this.querySelectorAll("rect")) box.setAttribute("width", width);
  const from = Math.max(x0, 0);
  const room = Math.floor((Math.min(x1, view.width) - from - 6) / LETTER);
  placeText(this, height < 12 ? "" : labelIn(mark, room), from - x0 + 4, height / 2 + REM * 0.27);
}

function labelIn({ items }, room) {
  if (items.length === 1) return fitting(items[0].label, room);
  const text = `×${items.length}`;
  return text.length <= room + 1 ? text : "";
}

// Text is what takes most time to draw: there is none where there is no room.
function placeText(group, words, x, y) {
  let text = group.lastChild.localName === "text" ? group.lastChild : null;
  if (!words) {
    if (text) text.remove();
    return;
  }
  if (!text) {
    text = document.createElementNS(group.namespaceURI, "text");
    text.setAttribute("y", y);
    group.append(text);
  }
  if (text.textContent !== words) text.textContent = words;
  text.setAttribute("x", x.toFixed(1));
}

// As the root, so that few can be seen beside many.
function densityShape(lane) {
  const columns = columnsOf(lane);
  const most = Math.sqrt(columns.reduce((n, column) => Math.max(n, column.count), 1));
  const shape = d3.path();
  for (const { x, width, count } of columns) {
    const height = Math.max(2, (Math.sqrt(count) / most) * (DENSITY - 2));
    shape.rect(x, lane.height - height, Math.max(width - 0.5, 1), height);
  }
  return shape.toString();
}

// Patterns, once for all drawings.
function buildPatterns(parent) {
  const svg = d3.create("svg:svg").attr("width", 0).attr("height", 0).attr("aria-hidden", "true").attr("class", "off-screen");
  const pattern = (id, size) => svg.append("pattern").attr("id", id).attr("width", size).attr("height", size)
    .attr("patternUnits", "userSpaceOnUse");
  pattern("hatch-bad", 6).append("path").attr("d", "M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2");
  pattern("hatch-held", 5).append("path").attr("d", "M2,0 v5");
  pattern("hatch-warn", 6).append("circle").attr("cx", 3).attr("cy", 3).attr("r", 1);
  parent.append(svg.node());
}

function buildLegend(list) {
  for (const tone of ["neutral", "good", "busy", "held", "warn", "bad"]) {
    if (!lanes.some((lane) => lane.items.some((item) => item.tone === tone))) continue;
    const svg = d3.create("svg:svg").attr("viewBox", "0 0 38 16").attr("aria-hidden", "true");
    const group = svg.append("g").attr("class", `tone-${tone}`);
    group.append("rect").attr("class", "area").attr("x", 1).attr("y", 2).attr("width", 18).attr("height", 12);
    if (HATCHED.includes(tone)) group.append("rect").attr("class", "hatch").attr("x", 1).attr("y", 2).attr("width", 18).attr("height", 12);
    addPoint(group.append("g").attr("transform", "translate(29,8)"), tone);
    list.append(element("li", {}, svg.node(), ` ${TONE_WORDS[tone] || "neither good nor bad"}`));
  }
  list.append(element("li", {}, "×3: several, too close to be told apart"));
  if (lanes.some((lane) => lane.isDense)) list.append(element("li", {}, "grey columns: how much there was of all"));
}
