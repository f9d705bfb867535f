"""The guest's words in a page: nothing hidden, nothing reordered, nothing without end.

`page/text.js` does the same in the browser.
"""

import re
import unicodedata
from functools import cache

from markupsafe import Markup, escape

LONGEST = 2_000
"""Characters of one piece of text in what is rendered here; the rest is told by its number."""

# Control characters, format characters (bidi overrides, zero-width ones), lone surrogates, line separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_MARKED = re.compile(r"(\x1b\[[0-9;:?]*[ -/]*[@-~]|[^\n\t -~])")


def sign(char: str) -> str:
    """A character that is not seen, as one that is: `␛`, `<U+202E>`."""
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"


def is_unseen(char: str) -> bool:
    """Whether a browser would act upon it instead of showing it; line ends and tabs are neither."""
    return char not in "\n\t" and unicodedata.category(char) in _UNSEEN


def plain(text: str) -> str:
    """`text` with each character seen: for attributes, titles, file names."""
    if not text.isascii():
        text = _tower().sub(lambda found: "".join(map(sign, found[0])), text)
    return text if text.isprintable() else "".join(sign(c) if is_unseen(c) else c for c in text)


def visible(text: str, most: int = LONGEST) -> Markup:
    """`text` as HTML, with what is not seen as marked symbols, cut after `most` characters."""
    text = text.replace("\r\n", "\n").removesuffix("\r")
    more = len(text) - most
    if more > 0:
        text = text[:most]
    pieces = [text] if text.isascii() else _tower().split(text)
    shown = Markup("").join(_signs(piece) if odd % 2 else _shown(piece) for odd, piece in enumerate(pieces))
    if more > 0:
        shown += Markup(' <span class="cut">… {:,} more characters</span>').format(more)
    return shown


@cache
def _tower() -> re.Pattern[str]:
    """Marks upon more marks on a letter than any script has: they would reach over the lines around it."""
    marks = "".join(char for char in map(chr, range(0x300, 0x20000)) if unicodedata.category(char)[0] == "M")
    marks += "\U000e0100-\U000e01ef"
    return re.compile(f"((?<=[{marks}]{{4}})[{marks}]+)")


def _signs(marks: str) -> Markup:
    return Markup('<span class="unseen">{}</span>').format("".join(map(sign, marks)))


def _shown(text: str) -> Markup:
    return escape(text) if text.isprintable() else Markup("").join(map(_piece, _MARKED.split(text)))


def _piece(piece: str) -> Markup:
    if _COLOUR.fullmatch(piece) or (len(piece) == 1 and is_unseen(piece)):
        return Markup('<span class="unseen">{}</span>').format(plain(piece))
    return escape(piece)
