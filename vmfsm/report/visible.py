"""The guest's words in a page: nothing hidden, nothing reordered, nothing without end.

`page/text.js` does the same in the browser.
"""

import re
import unicodedata

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
    return text if text.isprintable() else "".join(sign(c) if is_unseen(c) else c for c in text)


def visible(text: str, most: int = LONGEST) -> Markup:
    """`text` as HTML, with what is not seen as marked symbols, cut after `most` characters."""
    text = text.replace("\r\n", "\n").removesuffix("\r")
    more = len(text) - most
    if more > 0:
        text = text[:most]
    shown = escape(text) if text.isprintable() else Markup("").join(map(_piece, _MARKED.split(text)))
    if more > 0:
        shown += Markup(' <span class="cut">… {:,} more characters</span>').format(more)
    return shown


def _piece(piece: str) -> Markup:
    if _COLOUR.fullmatch(piece) or (len(piece) == 1 and is_unseen(piece)):
        return Markup('<span class="unseen">{}</span>').format(plain(piece))
    return escape(piece)
