"use strict";
// One search through all logs of all machines; matches follow each other in time.

const MOST_MATCHES = 20000;
const searching = { matches: [], now: -1, isCut: false };

function highlighted(text, pattern) {
  const nodes = document.createDocumentFragment();
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    nodes.append(visible(text.slice(from, found.index)), element("mark", {}, visible(found[0])));
    from = found.index + found[0].length;
  }
  nodes.append(visible(text.slice(from)));
  return nodes;
}

function search(words, isExact) {
  searching.matches = [];
  searching.now = -1;
  const pattern = words ? new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), isExact ? "g" : "gi") : null;
  for (const pane of panes) {
    const before = searching.matches.length;
    pane.pattern = pattern;
    pane.match = -1;
    if (pattern) collect(pane, pattern);
    const count = searching.matches.length - before;
    pane.count.textContent = pattern ? `; ${count.toLocaleString("en")} with a match` : "";
    pane.redraw();
  }
  searching.isCut = searching.matches.length >= MOST_MATCHES;
  searching.matches.sort((a, b) => a.t - b.t);
  sayCount(words);
}

function collect(pane, pattern) {
  pane.log.lines.forEach(([t, text], index) => {
    pattern.lastIndex = 0;
    if (searching.matches.length < MOST_MATCHES && pattern.test(text)) {
      searching.matches.push({ t, pane, row: pane.rowOfLine[index] });
    }
  });
  pattern.lastIndex = 0;
}

function sayCount(words) {
  const count = `${searching.matches.length.toLocaleString("en")}${searching.isCut ? " or more" : ""}`;
  const at = searching.now < 0 ? "" : `${(searching.now + 1).toLocaleString("en")} of `;
  document.getElementById("match-count").textContent = !words ? "" : searching.matches.length ? at + count + (at ? "" : " lines") : `no match${elsewhere()}`;
}

// What the timeline has that no log says.
function elsewhere() {
  const { pattern } = panes[0] || {};
  const has = ({ label, detail }) => [label, ...Object.values(detail || {})].some((value) => String(value).search(pattern) >= 0);
  const count = pattern ? d3.sum(lanes, (lane) => lane.items.filter(has).length) : 0;
  return count ? ` in the logs, but ${count.toLocaleString("en")} on the timeline` : "";
}

// The next match, or the one before: from the cursor on, then round and round.
function goToMatch(by) {
  const { matches } = searching;
  if (!matches.length) return;
  if (searching.now < 0) {
    const from = view.cursor === null ? 0 : d3.bisector((match) => match.t).left(matches, view.cursor);
    searching.now = (by > 0 ? from : from - 1 + matches.length) % matches.length;
  } else {
    searching.now = (searching.now + by + matches.length) % matches.length;
  }
  const { t, pane, row } = matches[searching.now];
  for (const other of panes) other.match = -1;
  reveal(t);
  moveCursor(t);
  pane.match = pane.current = pane.near = row;
  pane.scrollTo(row);
  pane.section.scrollIntoView({ block: "nearest" });
  sayCount(document.getElementById("search").value);
}

function buildSearch() {
  const field = document.getElementById("search");
  const isExact = document.getElementById("match-case");
  let timer = null;
  const start = () => {
    timer = null;
    search(field.value, isExact.checked);
  };
  const finish = () => {
    if (timer === null) return;
    clearTimeout(timer);
    start();
  };
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(start, 120);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      finish();
      goToMatch(-1);
    }
  });
  isExact.addEventListener("change", start);
  document.getElementById("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    finish();
    goToMatch(1);
  });
  document.getElementById("previous-match").addEventListener("click", () => { finish(); goToMatch(-1); });
  document.getElementById("wrap").addEventListener("change", (event) => {
    for (const pane of panes) {
      pane.isWrapped = event.target.checked;
      pane.place();
      pane.scrollTo(Math.max(pane.near, 0));
    }
  });
}
