"use strict";
// The report's data, and what of it all other scripts need: lanes, machines, failures.

const report = JSON.parse(document.getElementById("report-data").textContent);

// From the least to the worst: the worse is drawn on top.
const TONES = ["neutral", "good", "busy", "held", "warn", "bad"];
const TONE_WORDS = {
  neutral: "", good: "good", busy: "in progress", held: "held", warn: "warning", bad: "failed",
};

const machines = report.machines;
const lanes = [];
const failures = [];

machines.forEach((machine, number) => {
  machine.title = machine.name + (machine.launch > 1 ? ` (launch ${machine.launch})` : "");
  if (report.comparison) machine.title = report.comparison.names[number] || machine.title;
  if (machines.slice(0, number).some((other) => other.title === machine.title)) machine.title += ` (${machine.source})`;
});

// The end of an item; of one that has not ended that of its machine's recording.
function endOf(item, machine) {
  if (item.end === undefined) return item.t;
  return item.end === null ? Math.max(item.t, machine.end) : item.end;
}

for (const machine of machines) {
  for (const lane of machine.lanes) {
    lane.machine = machine;
    lane.name = `${lane.title} of ${machine.title}`;
    lane.items.sort((a, b) => a.t - b.t);
    lane.isDense = Boolean(lane.density) && (lane.shape === "density" || lane.left_out > 0);
    lane.rows = 1;
    lane.items.forEach((item, index) => {
      item.index = index;
      item.row = item.row || 0;
      item.until = endOf(item, machine);
      if (!TONES.includes(item.tone)) item.tone = "neutral";
      lane.rows = Math.max(lane.rows, item.row + 1);
    });
    lanes.push(lane);
  }
  const { at, outcome } = machine.diagnosis;
  if (at !== null && outcome === "failed") failures.push({ machine, at });
}
failures.sort((a, b) => (b.machine.key === report.primary) - (a.machine.key === report.primary) || a.at - b.at);

// What there is of time, with some room, so that what is at the edges can be seen.
const extent = (() => {
  const last = Math.max(report.length, ...machines.map((machine) => machine.end), 1e-3);
  const first = Math.min(0, ...machines.map((machine) => machine.begin));
  const room = (last - first) * 0.02;
  return [first - room, last + room];
})();

function logOf(machine, id) {
  return machine.logs.find((log) => log.id === id);
}

// The log that a lane's items are lines of.
function logOfLane(lane) {
  return logOf(lane.machine, lane.id === "events" ? "qmp" : lane.id);
}
