"use strict";
// All that is known of the item that is looked at, or pinned. Only pinning is announced: an item that has the
// focus is read out as it is.

const detailsPanel = document.getElementById("details");
let pinned = null;
let pinnedFrom = null; // what had the focus then, and gets it back

function hint() {
  const text = "Point at an item or go there with the arrow keys to see its details here. Click or Enter pins them.";
  detailsPanel.replaceChildren(element("p", { class: "hint" }, text));
}

// `mark` as pointed at or focused; what is pinned stays.
function glance(mark) {
  if (!pinned) fillDetails(mark);
}

function pin(mark) {
  beginPin(mark);
  fillDetails(mark);
  markPinned();
  announce(`Pinned: ${nameOf(mark)}. Tab goes to its details, Escape lets go.`);
}

function beginPin(mark) {
  const focused = document.activeElement.closest("g.mark, .log-rows");
  if (focused) pinnedFrom = focused;
  pinned = mark;
}

function announce(text) {
  document.getElementById("announcement").textContent = text;
}

function unpin() {
  if (!pinned) return;
  const hadFocus = detailsPanel.contains(document.activeElement);
  pinned = null;
  markPinned();
  hint();
  announce("Let go");
  if (!hadFocus) return;
  const back = [pinnedFrom, tabStop, detailsPanel].find((node) => node && node.isConnected);
  back.focus({ preventScroll: true });
}

// Marks are made anew as one zooms: which one has the pinned item is found by the item.
function markPinned() {
  const item = pinned && pinned.items[0];
  for (const node of document.querySelectorAll("g.mark.pinned")) node.classList.remove("pinned");
  for (const lane of pinned ? lanes : []) {
    if (lane.marks && lane === pinned.lane) lane.marks.classed("pinned", (mark) => Boolean(item) && mark.lane === pinned.lane && mark.items.includes(item));
  }
}

function fillDetails(mark) {
  const { lane, items } = mark;
  const [item] = items;
  const many = items.length > 1;
  const title = element("h4", {});
  title.append(many ? `${items.length.toLocaleString("en")} items, too close to be told apart` : isolated(item.label, 500));
  const facts = element("dl", {});
  const fact = (name, value) => facts.append(element("dt", {}, visible(name)), element("dd", {}, value));
  fact("Lane", isolated(lane.name));
  const last = many ? items[items.length - 1] : item;
  fact(many || item.end !== undefined ? "From" : "At", momentAndClock(item.t, 6));
  if (many || item.end !== undefined) {
    const isOpen = last.end === null;
    fact("To", isOpen ? "not ended" : moment(last.until, 6));
    fact(isOpen ? "So far" : "Took", duration(last.until - item.t));
  }
  const content = [title, facts];
  if (many) {
    const list = element("ul", {});
    for (const one of items.slice(0, 10)) list.append(element("li", {}, `${moment(one.t)} `, isolated(one.label, 120)));
    if (items.length > 10) list.append(element("li", {}, `… ${(items.length - 10).toLocaleString("en")} more: zoom in`));
    content.push(list);
  } else {
    if (TONE_WORDS[item.tone]) fact("Sign", TONE_WORDS[item.tone]);
    for (const [name, value] of Object.entries(item.detail || {})) {
      if (value === null || value === "" || name === "seconds") continue;
      const isTime = name === "timeout" && typeof value === "number";
      fact(name, isTime ? duration(value) : isolated(typeof value === "object" ? JSON.stringify(value) : value));
    }
  }
  content.push(buttonsFor(mark));
  detailsPanel.replaceChildren(...content);
}

function buttonsFor(mark) {
  const { lane, items } = mark;
  const last = items[items.length - 1];
  const row = element("div", { class: "buttons" });
  const add = (text, act) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", act);
    row.append(button);
  };
  add("Zoom to it", () => zoomTo(items[0].t, last.until));
  const log = logOfLane(lane);
  if (log) add("In the log", () => openLog(log, items[0]));
  if (pinned) row.append(letGoButton());
  return row;
}

function letGoButton() {
  const button = element("button", { type: "button" }, "Let go");
  button.addEventListener("click", unpin);
  return button;
}

// With what is around it, without which a moment says nothing.
function zoomTo(from, to) {
  const around = Math.min(0.5, (extent[1] - extent[0]) / 100);
  const room = Math.max((to - from) * 0.2, to > from ? SHORTEST : around);
  show(from - room, to + room);
}

// A whole line of a log, however long.
function showLine(log, text, t) {
  beginPin({ items: [], lane: null });
  markPinned();
  const title = element("h4", {}, `${plain(log.machine.title)}: ${plain(log.title)}, ${moment(t, 6)}`);
  const lines = element("pre", { tabindex: 0, "aria-label": "Whole line" }, isolated(text, 100000));
  detailsPanel.replaceChildren(title, lines, letGoButton());
}
