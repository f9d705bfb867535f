"use strict";
// Logs: of each only the rows that can be seen are in the page, so that its length costs nothing.

const LONGEST_ROW = 600; // characters of a line in its row; the details have all of it
const LATE = 0.005; // seconds: what a verdict is made of is recorded a moment after it
const BEYOND = 8; // rows that are drawn above and below what is seen

const panes = [];

class LogPane {
  constructor(machine, log, number) {
    log.machine = machine;
    this.log = log;
    this.id = `log-${machine.key}-${number}`;
    this.current = 0;
    this.near = -1;
    this.match = -1;
    this.isWrapped = document.getElementById("wrap").checked;
    this.tops = null;
    this.pattern = null;
    this.listEntries();
    this.build();
  }

  // What has a row: lines by their index, and what is between them (gaps, the failure) as objects.
  listEntries() {
    const { lines, gaps } = this.log;
    const between = (gaps || []).map((gap) => ({ before: gap.before, gap }));
    for (const { machine, at } of failures) {
      if (machine !== this.log.machine) continue;
      const before = d3.bisector(([t]) => t).right(lines, at + LATE);
      between.push({ before, t: at, failure: machine.diagnosis });
    }
    between.sort((a, b) => a.before - b.before);
    this.entries = [];
    this.rowOfLine = new Uint32Array(lines.length);
    let next = 0;
    for (let index = 0; index <= lines.length; index += 1) {
      while (next < between.length && between[next].before <= index) this.entries.push(between[next++]);
      if (index === lines.length) break;
      this.rowOfLine[index] = this.entries.length;
      this.entries.push(index);
    }
    while (next < between.length) this.entries.push(between[next++]);
  }

  build() {
    const { log } = this;
    this.space = element("div", { class: "space", role: "rowgroup" });
    this.rows = element("div", {
      class: "log-rows", role: "grid", tabindex: 0, id: this.id, "aria-rowcount": this.entries.length,
      "aria-label": plain(`${log.title} of ${log.machine.title}`), "data-log": log.id, "data-machine": log.machine.key,
    }, this.space);
    const about = element("p", { class: "about" });
    const left = log.total - log.lines.length;
    about.append(`${log.total.toLocaleString("en")} ${log.total === 1 ? "line" : "lines"}`);
    if (left > 0) about.append(`, ${left.toLocaleString("en")} of them not in this page, and not searched`);
    if (log.file) about.append("; all of them: ", linkTo(log.file));
    this.count = element("span", { class: "matches" });
    about.append(this.count);
    const title = element("h3", {}, element("bdi", {}, visible(machines.length > 1 ? `${log.machine.title}: ${log.title}` : log.title)));
    this.section = element("section", { class: "log", "aria-label": plain(`${log.title}, ${log.machine.title}`) }, title, about, this.rows);
    this.rows.addEventListener("scroll", () => this.redraw(), { passive: true });
    this.rows.addEventListener("keydown", (event) => this.onKey(event));
    this.rows.addEventListener("click", (event) => this.onClick(event));
  }

  measure() {
    const probe = element("div", { class: "log-row" }, element("span", { class: "text" }, "0".repeat(100)));
    this.space.append(probe);
    this.rowHeight = probe.getBoundingClientRect().height || 18;
    this.letter = probe.firstChild.firstChild ? widthOfText(probe.firstChild.firstChild) / 100 : 8;
    probe.remove();
    this.stampWidth = Math.max(7, this.entries.length ? moment(this.log.lines.length ? this.log.lines[this.log.lines.length - 1][0] : 0).length : 0);
    this.place();
  }

  // Where each row begins. All are of the same height, unless lines are wrapped: the type is fixed, so how
  // many rows a line takes can be told without having it drawn.
  place() {
    const count = this.entries.length;
    this.tops = null;
    if (this.isWrapped) {
      const columns = Math.max(10, Math.floor((this.rows.clientWidth - 24) / this.letter) - this.stampWidth - 3);
      this.tops = new Float64Array(count + 1);
      for (let row = 0; row < count; row += 1) {
        const size = Math.min(LONGEST_ROW + 30, widthOf(this.textOf(row)));
        this.tops[row + 1] = this.tops[row] + this.rowHeight * Math.max(1, Math.ceil(size / columns));
      }
    }
    this.space.style.height = `${this.topOf(count)}px`;
    this.rows.classList.toggle("wrapped", this.isWrapped);
    this.redraw();
  }

  topOf(row) {
    return this.tops ? this.tops[row] : row * this.rowHeight;
  }

  rowAt(y) {
    const row = this.tops ? d3.bisectRight(this.tops, y) - 1 : Math.floor(y / this.rowHeight);
    return Math.min(Math.max(row, 0), Math.max(this.entries.length - 1, 0));
  }

  textOf(row) {
    const entry = this.entries[row];
    if (typeof entry === "number") return this.log.lines[entry][1].replace(/\r$/, "");
    if (entry.failure) return `✕ failure: ${entry.failure.kind}`;
    const { lines, bytes } = entry.gap;
    const where = this.log.file ? `: whole text in ${this.log.file}` : "";
    return `… ${lines.toLocaleString("en")} lines left out${bytes ? ` (${bytes.toLocaleString("en")} bytes)` : ""}${where}`;
  }

  timeOf(row) {
    const entry = this.entries[row];
    if (typeof entry === "number") return this.log.lines[entry][0];
    if (entry.failure) return entry.t;
    const line = this.log.lines[Math.max(0, Math.min(entry.before, this.log.lines.length) - 1)];
    return line ? line[0] : null;
  }

  redraw() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    requestAnimationFrame(() => {
      this.isDrawing = false;
      this.draw();
    });
  }

  draw() {
    if (!this.rowHeight) return;
    const { scrollTop, clientHeight } = this.rows;
    const first = Math.max(0, this.rowAt(scrollTop) - BEYOND);
    const last = Math.min(this.entries.length - 1, this.rowAt(scrollTop + clientHeight) + BEYOND);
    const drawn = [];
    for (let row = first; row <= last; row += 1) drawn.push(this.rowElement(row));
    if (!this.entries.length) drawn.push(element("div", { class: "log-row", role: "row" }, element("span", { class: "text", role: "gridcell" }, "(nothing)")));
    this.replaceRows(drawn);
    const isShown = this.current >= first && this.current <= last && this.entries.length;
    if (isShown) this.rows.setAttribute("aria-activedescendant", `${this.id}-${this.current}`);
    else this.rows.removeAttribute("aria-activedescendant");
  }

  // Rows that are as they were stay in the page: what somebody has selected in them stays selected.
  replaceRows(drawn) {
    const old = new Map(Array.from(this.space.children, (node) => [node.id, node]));
    const rows = drawn.map((node) => (old.has(node.id) && old.get(node.id).isEqualNode(node) ? old.get(node.id) : node));
    const kept = new Set(rows);
    for (const node of old.values()) if (!kept.has(node)) node.remove();
    rows.forEach((node, index) => {
      if (this.space.children[index] !== node) this.space.insertBefore(node, this.space.children[index] || null);
    });
  }

  rowElement(row) {
    const entry = this.entries[row];
    const t = this.timeOf(row);
    const classes = ["log-row"];
    if (typeof entry !== "number") classes.push(entry.failure ? "failed" : "gap");
    else if (this.log.lines[entry][2]) classes.push(`tone-${this.log.lines[entry][2]}`);
    if (row === this.near) classes.push("near");
    if (row === this.current && document.activeElement === this.rows) classes.push("current");
    if (row === this.match) classes.push("match-now");
    const stamp = t === null ? "" : moment(t);
    const when = element("span", { class: "when", role: "gridcell" }, (row === this.near ? "▸" : "").concat(stamp.padStart(this.stampWidth + (row === this.near ? 0 : 1))));
    const text = element("span", { class: "text", role: "gridcell", dir: "ltr" }, this.shownText(row));
    const made = element("div", { class: classes.join(" "), role: "row", id: `${this.id}-${row}`, "aria-rowindex": row + 1, "data-row": row }, when, text);
    made.style.top = `${this.topOf(row)}px`;
    made.style.height = `${this.topOf(row + 1) - this.topOf(row)}px`;
    return made;
  }

  shownText(row) {
    const text = this.textOf(row);
    const shown = document.createDocumentFragment();
    const entry = this.entries[row];
    if (typeof entry !== "number" && entry.gap && this.log.file) {
      shown.append(text.slice(0, text.length - this.log.file.length), linkTo(this.log.file, -1));
      return shown;
    }
    const isSearched = this.pattern && typeof entry === "number";
    const match = isSearched ? text.search(this.pattern) : -1;
    const from = match > LONGEST_ROW / 2 ? Math.min(match - 100, Math.max(0, text.length - LONGEST_ROW)) : 0;
    if (from) shown.append("… ");
    const part = cut(text, from, from + LONGEST_ROW);
    shown.append(isSearched ? highlighted(part, this.pattern) : visible(part));
    if (text.length > LONGEST_ROW) {
      const button = element("button", { type: "button", class: "all", tabindex: -1 }, `show all ${text.length.toLocaleString("en")} characters`);
      button.addEventListener("click", () => showLine(this.log, text, this.timeOf(row)));
      shown.append(from + LONGEST_ROW < text.length ? " … " : " ", button);
    }
    return shown;
  }

  // Have a row in view, in the middle unless it is seen already.
  scrollTo(row) {
    const top = this.topOf(row);
    const { scrollTop, clientHeight } = this.rows;
    if (top < scrollTop || top + this.rowHeight * 2 > scrollTop + clientHeight) {
      this.rows.scrollTop = Math.max(0, top - clientHeight / 2);
    }
    this.redraw();
  }

  // The last row that was written until `t`.
  goTo(t) {
    const line = d3.bisector(([at]) => at).right(this.log.lines, t + 1e-9) - 1;
    this.near = line < 0 ? -1 : this.rowOfLine[line];
    this.scrollTo(Math.max(this.near, 0));
  }

  goToLine(index) {
    this.current = this.near = this.rowOfLine[Math.min(index, this.log.lines.length - 1)] || 0;
    this.scrollTo(this.current);
  }

  choose(row) {
    this.current = row;
    const t = this.timeOf(row);
    if (t === null) return;
    reveal(t);
    moveCursor(t);
    this.near = row;
    const text = this.textOf(row);
    if (text.length > LONGEST_ROW) showLine(this.log, text, t);
    this.redraw();
  }

  onClick(event) {
    const row = event.target.closest("[data-row]");
    const chosen = getSelection();
    const isSelecting = !chosen.isCollapsed && this.rows.contains(chosen.anchorNode) && !event.target.closest(".when");
    if (!row || event.target.closest("a, button") || isSelecting) return;
    this.choose(Number(row.dataset.row));
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.rows.clientHeight / this.rowHeight) - 1);
    const moves = {
      ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity,
    };
    if (event.ctrlKey || event.altKey || event.metaKey || event.target !== this.rows) return;
    if (event.key in moves) {
      this.current = Math.min(Math.max(this.current + moves[event.key], 0), Math.max(0, this.entries.length - 1));
      this.scrollTo(this.current);
    } else if (event.key === "Enter" && this.entries.length) {
      this.choose(this.current);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

function widthOfText(node) {
  const range = document.createRange();
  range.selectNodeContents(node);
  return range.getBoundingClientRect().width;
}

// In columns of a fixed type, not less than it takes: wide letters count twice, symbols as what stands for them.
function widthOf(text) {
  if (/^[ -~]*$/.test(text)) return text.length;
  let width = 0;
  for (const char of plain(text.slice(0, LONGEST_ROW))) width += char > "\u10ff" ? 2 : char === "\t" ? 8 : 1;
  return width;
}

// A file beside the page: never a scheme or a host, whatever its name is.
function linkTo(path, tabindex = null) {
  const safe = path.toWellFormed ? path.toWellFormed() : path;
  const target = safe.split("/").map(encodeURIComponent).join("/");
  return element("a", { href: path.startsWith("/") ? `file://${target}` : `./${target}`, tabindex }, element("bdi", {}, visible(path)));
}

function buildLogs(parent) {
  for (const machine of machines) {
    const made = machine.logs.map((log, number) => new LogPane(machine, log, number));
    made.sort((a, b) => (a.log.id === "qmp") - (b.log.id === "qmp"));
    panes.push(...made);
    parent.append(...made.map((pane) => pane.section));
  }
  const resized = new ResizeObserver((entries) => {
    for (const pane of panes) {
      if (entries.some((entry) => entry.target === pane.rows)) pane.isWrapped ? pane.place() : pane.redraw();
    }
  });
  for (const pane of panes) {
    pane.measure();
    resized.observe(pane.rows);
  }
}

function paneOf(log) {
  return panes.find((pane) => pane.log === log);
}

// Where an item is in a log: its own line where that is known, else its moment.
function openLog(log, item) {
  const pane = paneOf(log);
  moveCursor(item.t);
  if (item.line !== null && item.line !== undefined && item.line < log.lines.length) pane.goToLine(item.line);
  pane.section.scrollIntoView({ block: "center", behavior: smoothly() });
  pane.rows.focus({ preventScroll: true });
}

function smoothly() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
}

changes.on("cursor.logs", () => {
  if (view.cursor === null) return;
  for (const pane of panes) pane.goTo(view.cursor);
});
