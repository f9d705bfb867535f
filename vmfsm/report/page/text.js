"use strict";
// The guest's words, shown harmlessly: only ever as text, and what is not seen as marked symbols.
// vmfsm/report/visible.py does the same.

// The last of these are marks upon more marks on a letter than any script has: they would reach over other lines.
const UNSEEN = /\x1b\[[0-9;:?]*[ -/]*[@-~]|[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]|(?<=\p{M}{4})\p{M}+/gu;

function sign(char) {
  const code = char.codePointAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return code === 0x7f ? "␡" : `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
}

// What was found to be unseen, as what is seen.
function signs(found) {
  return Array.from(found, (char) => (char >= " " && char <= "~" ? char : sign(char))).join("");
}

// The same on one line, for labels and attributes.
function plain(text) {
  return String(text).replace(UNSEEN, signs);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// `text` as nodes. Line ends and tabs stay.
function visible(text) {
  const nodes = document.createDocumentFragment();
  let from = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found[0] === "\n" || found[0] === "\t") continue;
    nodes.append(text.slice(from, found.index), element("span", { class: "unseen" }, signs(found[0])));
    from = found.index + found[0].length;
  }
  nodes.append(text.slice(from));
  return nodes;
}

// A part of `text`, and no half of a character.
function cut(text, from, to) {
  const isHalf = (index) => index > 0 && index < text.length && text.codePointAt(index - 1) > 0xffff;
  return text.slice(isHalf(from) ? from - 1 : from, isHalf(to) ? to - 1 : to);
}

// `text` isolated from the direction of what stands around it.
function isolated(text, most = 2000) {
  text = String(text);
  const shown = element("bdi", {}, visible(cut(text, 0, most)));
  if (text.length > most) {
    shown.append(element("span", { class: "cut" }, ` … ${(text.length - most).toLocaleString("en")} more characters`));
  }
  return shown;
}

// `text` cut so that it fits into as many characters, as far as one can tell.
function fitting(text, most) {
  if (most < 2) return "";
  const shown = plain(cut(text, 0, 200));
  return shown.length <= most ? shown : `${shown.slice(0, Math.max(1, most - 1))}…`;
}
