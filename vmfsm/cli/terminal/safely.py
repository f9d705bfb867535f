"""A guest's bytes on somebody's terminal: text and colours as they are, everything else made visible."""

import codecs
import re

from vmfsm.errors import printable

# Select Graphic Rendition (ECMA-48): colours and the like, which do no harm.
_COLOURS = re.compile(r"(\x1b\[[0-9;:]{0,32}m)")
# What may go on in what comes next: the end of a line, or such a sequence.
_BEGUN = re.compile(r"(?:\r|\x1b(?:\[[0-9;:]{0,32})?)\Z")


class SafeText:
    """Makes text of bytes as they come, which may be written to a terminal.

    :param colours: let those through.
    """

    def __init__(self, *, colours: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._colours = colours
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """What can be told so far. `final`: no more comes."""
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        if not final and (begun := _BEGUN.search(text)):
            text, self._held = text[: begun.start()], begun[0]
        shown = []
        for number, part in enumerate(_COLOURS.split(text)):
            if number % 2 == 0:
                shown.append(printable(part))
            elif self._colours:
                shown.append(part)
        return "".join(shown)
