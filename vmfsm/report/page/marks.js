"use strict";
// Level of detail: what of a lane's items is drawn. Items of one tone that are closer than can be told apart
// become one mark with their number; where there would still be too many to draw in a frame, what is further
// apart does, too.

const MOST_MARKS = Math.max(80, Math.ceil(1200 / Math.max(1, lanes.filter((lane) => lane.items.length).length)));

// `isAll`: not only of what is in view, for going from mark to mark.
function marksOf(lane, isAll = false) {
  if (isAll) return merged(lane, lane.coarse, true);
  for (lane.coarse = 1; ; lane.coarse *= 2) {
    const marks = merged(lane, lane.coarse, false);
    if (marks.length <= MOST_MARKS || lane.coarse >= 64) return marks;
  }
}

function merged(lane, coarse, isAll) {
  const marks = [];
  const scale = view.width / (view.to - view.from);
  const last = new Map();
  const widest = coarse > 1 ? 16 * coarse : Infinity;
  for (const item of lane.items) {
    const isPoint = item.end === undefined;
    const x0 = (item.t - view.from) * scale;
    if (!isAll && x0 > view.width + 20) break;
    const x1 = isPoint ? x0 : (item.until - view.from) * scale;
    if (!isAll && x1 < -20) continue;
    const close = coarse * (isPoint ? 7 : 2);
    const isSmall = x1 - x0 < close;
    const key = item.row * TONES.length + TONES.indexOf(item.tone);
    const mark = last.get(key);
    const isNear = mark && x0 - mark.x1 < close && x1 - mark.x0 < widest;
    if (isSmall && isNear && mark.isSmall && mark.isPoint === isPoint) {
      mark.items.push(item);
      mark.x1 = Math.max(x1, mark.x1);
    } else {
      const made = { lane, items: [item], x0, x1, isSmall, isPoint };
      last.set(key, made);
      marks.push(made);
    }
  }
  return marks;
}

// A drawing stays that of the same item, alone or with others, so that few have to be made anew while one zooms.
function keyOf({ items }) {
  return items.length === 1 ? items[0].index : `${items[0].index}+`;
}

// In words, for those who do not see it.
function nameOf(mark) {
  const [item] = mark.items;
  if (mark.items.length > 1) {
    const words = `${mark.items.length} items, the first: ${plain(item.label)}`;
    return `${words}, from ${moment(item.t)} to ${moment(mark.items[mark.items.length - 1].t)}`;
  }
  const tone = TONE_WORDS[item.tone];
  const took = item.end === undefined ? "" : `, ${item.end === null ? "not ended, " : ""}${duration(item.until - item.t)}`;
  return `${plain(item.label).slice(0, 200)}${tone && `, ${tone}`}, at ${moment(item.t)}${took}`;
}

// What was counted of a lane, in columns of at least three pixels.
function columnsOf(lane) {
  const { begin, step, counts } = lane.density;
  const scale = view.width / (view.to - view.from);
  const together = Math.max(1, Math.ceil(3 / (step * scale)));
  const first = Math.max(0, Math.floor((view.from - begin) / step / together) * together);
  const end = Math.min(counts.length, Math.ceil((view.to - begin) / step));
  const columns = [];
  for (let index = first; index < end; index += together) {
    let count = 0;
    for (let n = index; n < Math.min(index + together, counts.length); n += 1) count += counts[n];
    if (count) columns.push({ x: (begin + index * step - view.from) * scale, width: together * step * scale, count });
  }
  return columns;
}
