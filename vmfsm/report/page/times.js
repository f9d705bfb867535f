"use strict";
// How times are said; vmfsm/report/times.py does the same.

function duration(seconds) {
  const size = Math.abs(seconds);
  if (size < 0.0009995) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (size < 0.9995) return `${Number((seconds * 1e3).toPrecision(3))} ms`;
  if (size < 99.95) return `${seconds.toFixed(size < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(size);
  const sign = seconds < 0 ? "-" : "";
  if (size < 5970) return `${sign}${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.floor(whole / 60);
  return `${sign}${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

// `12.345 s`, from two minutes on `2:03.456`, `1:02:03.456`.
function moment(seconds, digits = 3) {
  if (Math.abs(seconds) < 120) return `${seconds.toFixed(digits)} s`;
  return clock(seconds, digits);
}

function clock(seconds, digits) {
  const unit = 10 ** digits;
  const all = Math.round(Math.abs(seconds) * unit);
  const minutes = Math.floor(all / (60 * unit));
  const rest = ((all % (60 * unit)) / unit).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const hours = Math.floor(minutes / 60);
  const text = hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
  return seconds < 0 ? `-${text}` : text;
}

const beginning = Date.parse(report.begin);

// What the host's clock said, UTC, to the microsecond as far as a double has it. Runs that are compared were not
// at one time: there is none to say.
function absolute(seconds) {
  if (Number.isNaN(beginning) || report.comparison) return "";
  const micro = Math.round(seconds * 1e6);
  const date = new Date(beginning + Math.floor(micro / 1e3));
  if (Number.isNaN(date.getTime())) return "";
  const rest = String(((micro % 1e3) + 1e3) % 1e3).padStart(3, "0");
  return date.toISOString().replace("T", " ").replace("Z", `${rest} UTC`);
}

// A moment as one reads it, and as the host's clock said it.
function momentAndClock(seconds, digits) {
  const clockSaid = absolute(seconds);
  return moment(seconds, digits) + (clockSaid && ` · ${clockSaid}`);
}

const STEPS = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

// Ticks of an axis: their moments, and what to write. Below a millisecond it is written how much later than
// `base` they are, since all digits would be too many.
function ticksOf([from, to], most) {
  const least = (to - from) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(least));
  let step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least * 0.999);
  if (step > 10) step = STEPS.find((n) => n >= least) || Math.ceil(least / 86400) * 86400;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const base = step < 1e-3 ? Math.floor(from * 1e3) / 1e3 : null;
  const ticks = [];
  for (let n = Math.ceil(from / step); n * step <= to; n += 1) ticks.push(n * step);
  const write = (t) => {
    if (base !== null) return `+${Math.round((t - base) * 1e6)} µs`;
    return to >= 120 && step >= 1 ? clock(t, 0) : to >= 120 ? clock(t, digits) : `${t.toFixed(digits)} s`;
  };
  return { ticks, write, base };
}
