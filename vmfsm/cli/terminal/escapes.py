"""What a guest makes of the terminal that it writes to: as much as who draws on it, too, must know."""

import re

# ECMA-48, "Control functions"; xterm's "Control Sequences" for the modes.
_SEQUENCE = re.compile(rb"\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*([0-~]))")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")
_CHARACTER = re.compile(rb"(?:[\xc0-\xff]|[\xe0-\xff][\x80-\xbf]|[\xf0-\xff][\x80-\xbf]{2})\Z")
_ALTERNATE = {b"?1049", b"?1047", b"?47"}
_LONGEST = 4096
"""Bytes of a sequence without an end that are believed to be one."""


class Tracker:
    """Follows what is written to a terminal."""

    def __init__(self) -> None:
        self.at_start_of_line = True
        self.between_sequences = True
        """Something else may be written here, without ending up in a control sequence or a character."""
        self.region_lost = False
        """Somebody has reset the scrolling region."""
        self._alternate = False
        self._own_region = False
        self._begun = b""

    @property
    def taken(self) -> bool:
        """A program has the whole screen: the alternate buffer, or a scrolling region of its own."""
        return self._alternate or self._own_region

    def feed(self, data: bytes) -> None:
        if not data:
            return
        text = self._begun + data
        if b"\x1b" in text:
            for found in _SEQUENCE.finditer(text):
                self._follow(found)
            unfinished = _UNFINISHED.search(text, max(0, len(text) - _LONGEST))
            self._begun = unfinished[0] if unfinished else b""
        else:
            self._begun = b""
        self.between_sequences = not self._begun and _CHARACTER.search(text, max(0, len(text) - 3)) is None
        visible = _SEQUENCE.sub(b"", text[: len(text) - len(self._begun)][-_LONGEST:])
        if visible:
            self.at_start_of_line = visible.endswith((b"\n", b"\r"))

    def _follow(self, found: "re.Match[bytes]") -> None:
        parameters, final, single = found.groups()
        if final == b"r":
            whole = parameters in {b"", b";", b"1", b"0"}
            self._own_region, self.region_lost = not whole, True
        elif final in {b"h", b"l"} and parameters in _ALTERNATE:
            self._alternate, self.region_lost = final == b"h", True
        elif single == b"c":  # RIS: everything as it was at first
            self._alternate = self._own_region = False
            self.region_lost = True
