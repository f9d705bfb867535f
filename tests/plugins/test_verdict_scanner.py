"""Patterns in streams: found wherever the stream is cut, as in the whole text, and with bounded work."""

import random
import re
import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmfsm_plugins.verdicts.patterns import LEAST, LINE, MOST_LINES, OVERLAP, Pattern
from vmfsm_plugins.verdicts.rules import CONSOLE, RULES
from vmfsm_plugins.verdicts.scanner import Scanner

MANY = 10**9
DEFAULTS = tuple(
    Pattern.compile(text) for rule in RULES.values() if CONSOLE in rule.sources for text in rule.patterns
)


def scan(
    patterns: tuple[Pattern, ...], chunks: Iterable[bytes], most: int = MANY
) -> list[tuple[int, int, bytes]]:
    scanner = Scanner(patterns, most)
    found = [one for chunk in chunks for one in scanner.feed(chunk)]
    return [(one.pattern, one.position, one.text) for one in [*found, *scanner.flush()]]


def texts(pattern: str, *chunks: bytes) -> list[bytes]:
    return [text for _, _, text in scan((Pattern.compile(pattern),), chunks)]


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# -- the language -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("fails", b"it fails here\n", [b"it fails here"]),
        ("fails", b"it Fails here\n", []),
        ("fails", b"one fails and fails\nfails\n", [b"one fails and fails", b"fails"]),
        ("fails", b"it fai\nls here\n", []),
        ("ASSERT*failed", b"ASSERT x failed\nASSERT\nfailed\nfailed ASSERT\n", [b"ASSERT x failed"]),
        ("ASSERT*failed", b"ASSERTfailed\n", [b"ASSERTfailed"]),
        ("a*b*cccc", b"a b a cccc\na cccc b\n", [b"a b a cccc"]),
        ("*words*", b"no words\n", [b"no words"]),
        ("fails\n", b"it fails\nit fails!\nfails\r\n", [b"it fails", b"fails"]),
        ("\nfails", b"fails\nit fails\r\nfails too\n", [b"fails", b"fails too"]),
        ("\nfails\n", b"fails\nfails!\n!fails\n", [b"fails"]),
        ("\nfail*ed\n", b"failed\nfail or ed\nfailed!\n", [b"failed", b"fail or ed"]),
        ("first\nsecond", b"the first\r\nsecond one\n", [b"the first\nsecond one"]),
        ("first\nsecond", b"first \nsecond\nfirst\n second\n", []),
        ("first\n*\nthird", b"first\nwhatever\nthird\n", [b"first\nwhatever\nthird"]),
        ("first\n\nthird", b"first\n\nthird\nfirst\n \nthird\n", [b"first\n\nthird"]),
        ("again\nagain", b"again\nagain\nagain\n", [b"again\nagain", b"again\nagain"]),
        (r"\*\*\* stop", b"*** stop\nxxx stop\n", [b"*** stop"]),
        (r"back\\slash", rb"back\slash", [rb"back\slash"]),
        (r"back\slash", rb"back\slash", [rb"back\slash"]),
        ("größer", "größer\n".encode(), ["größer".encode()]),
        ("fails", b"it \x1b[31mfa\x1b[1;32mils\x1b[0m\n", [b"it fails"]),
        ("fails", b"fa\x1b[ils\nfa\x1bils\n", []),
        ("fails", b"unfinished but fails", [b"unfinished but fails"]),
        ("fails\n", b"unfinished but fails", []),
    ],
)
def test_what_patterns_mean(pattern: str, text: bytes, expected: list[bytes]) -> None:
    """The same, wherever it is cut."""
    for size in range(1, len(text) + 1):
        assert texts(pattern, *in_pieces(text, size)) == expected
    for at in range(len(text)):
        assert texts(pattern, text[:at], text[at:]) == expected


@pytest.mark.parametrize(
    "pattern", ["", "*", "a" * (LEAST - 1), "ab*cd\nefg", "x" * (OVERLAP + 1), "four\n" * (MOST_LINES + 1)]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"it (has|is)"):
        Pattern.compile(pattern)


def oracle(patterns: Sequence[str], text: bytes) -> list[tuple[int, int, bytes]]:
    """By regular expressions on all of it."""
    lines = re.sub(rb"\x1b\[[0-9;:?]{0,32}[@-~]|\x1b(\[[0-9;:?]{0,32})?\Z", b"", text).split(b"\n")
    # As many line ends as in the text itself: none is in a control sequence.
    begins = [0, *(found.end() for found in re.finditer(b"\n", text))]
    found = []
    for number, whole in enumerate(patterns):
        pattern = whole.removeprefix("\n")
        expression = r"\A" if whole != pattern else ""
        expression += re.escape(pattern).replace(r"\*", "[^\n]*").replace("\\\n", "\r*\n")
        count = pattern.removesuffix("\n").count("\n") + 1
        for last in range(count - 1, len(lines)):
            window = b"\n".join(lines[last - count + 1 : last + 1])
            if last < len(lines) - 1:
                window += b"\n"
            elif pattern.endswith("\n"):
                continue
            first_line, *rest = window.split(b"\n", 1)
            head = re.sub(rb"\r+\Z", b"", first_line)
            window = b"\n".join([head, *rest])
            match = re.search(expression.encode(), window)
            if match and b"\n" not in window[: match.start()]:
                stripped = [line.rstrip(b"\r") for line in lines[last - count + 1 : last + 1]]
                found.append((number, begins[last], b"\n".join(stripped)))
    return sorted(found, key=lambda one: (one[1], one[0]))


WORDS = ["abab", "ab", "Oops", "#", "\r", "\n", " ", "\x1b[m", "\x1b[1;3", "\x1b", "x", "Oopsabab"]
PATTERNS = ["Oops", "Oops*#", "abab*Oops", "abab\n", "\nOops", "Oops\nabab", "abab\n*\nOops", "#\nOops\n"]


@given(st.lists(st.sampled_from(WORDS), max_size=40), st.data())
def test_it_is_as_if_all_were_searched_at_once(words: list[str], data: st.DataObject) -> None:
    text = "".join(words).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = scan(tuple(Pattern.compile(pattern) for pattern in PATTERNS), chunks)
    assert sorted(found, key=lambda one: (one[1], one[0])) == oracle(PATTERNS, text)


def test_positions_are_of_the_stream() -> None:
    text = b"".join(b"\x1b[3%dmline %d Oops\x1b[m\r\n" % (n % 8, n) for n in range(200))
    expected = [found.start() for found in re.finditer(rb"^", text, re.MULTILINE)][:-1]
    for size in (1, 7, 1000, len(text)):
        found = scan((Pattern.compile("Oops"),), in_pieces(text, size))
        assert [position for _, position, _ in found] == expected[: len(found)]
        assert len(found) == 200


# -- what is bounded ----------------------------------------------------------------------------------------


def test_a_line_without_end() -> None:
    """It is found once, wherever it is in the line, and once more in the next line."""
    pattern, chosen = Pattern.compile("Oops*now"), random.Random(1)
    for at in [*range(LINE - 20, LINE + 3), *range(2 * LINE - OVERLAP - 20, 2 * LINE - OVERLAP + 3), 200_000]:
        line = b"x" * at + b"Oops, now" + b"y" * chosen.randrange(3 * LINE)
        text = line + b"\n" + b"Oops right now\n"
        for chunks in ([text], in_pieces(text, 4096), in_pieces(text, chosen.randrange(700, 70_000))):
            found = scan((pattern,), chunks)
            assert [position for _, position, _ in found] == [0, len(line) + 1], at
            assert b"Oops, now" in found[0][2]


def test_the_end_of_a_long_line_and_the_beginning_of_the_next() -> None:
    text = b"x" * 3 * LINE + b"first\nsecond\n" + b"first" + b"x" * 3 * LINE + b"\nsecond\n"
    for size in (100, 4096, len(text)):
        assert len(scan((Pattern.compile("first\nsecond"),), in_pieces(text, size))) == 1
    cut = b"x" * (LINE - OVERLAP) + b"Oops" + b"x" * 3000 + b"\n"
    for size in (100, LINE, len(cut)):
        assert scan((Pattern.compile("\nOops"),), in_pieces(cut, size)) == []
    long = b"Oops" + b"x" * 3 * LINE + b"Oops\n"
    assert len(scan((Pattern.compile("\nOops"),), in_pieces(2 * long, 1000))) == 2
    assert scan((Pattern.compile("\nOops\n"),), in_pieces(2 * long, 1000)) == []


HOSTILE = {
    "one after the other": b"Kernel panic - not syncing: Oops: [#1]\n",
    "almost": b"Oops #\nUBSAN: \nINFO: task blocked for more than\n",
    "in one line": b"UBSAN: Oops [# BUG: ",
    "nothing but line ends": b"\n",
    "carriage returns": b"\r",
    "colours": b"\x1b[1;31m",
    "half a colour": b"\x1b[1;3",
    "colours, and all keys": b"".join(b"\x1b[m%s\n" % pattern.key for pattern in DEFAULTS) + b"#!\n",
    "stars": b"*" * 64,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("size", [100, 64 * 1024])
def test_a_hostile_guest_makes_no_work_but_for_its_bytes(text: bytes, size: int) -> None:
    """Each look at a line is paid for by a key in it: no more of them than bytes by the length of keys."""
    total = 1000 * size if size < 1000 else 2 * size
    data = (text * (total // len(text) + 1))[:total]
    scanner = Scanner(DEFAULTS, most=10)
    tracemalloc.start()
    try:
        found = sum(len(scanner.feed(chunk)) for chunk in in_pieces(data, size))
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    again = total // size if size < 1000 else 0  # the unfinished line is looked at again with each chunk
    assert scanner.tries <= total // LEAST + again * len(DEFAULTS)
    assert found <= 10 * len(DEFAULTS)
    assert current < 256 * 1024


def test_what_comes_by_single_bytes() -> None:
    scanner = Scanner(DEFAULTS, most=10)
    for byte in b"x" * 20_000 + b"\nKernel panic - not syncing: it\n":
        found = scanner.feed(bytes([byte]))
    assert [one.text for one in found] == [b"Kernel panic - not syncing: it"]


def test_what_there_is_too_much_of_is_counted() -> None:
    scanner = Scanner((Pattern.compile("Oops"),), most=3)
    assert len(scanner.feed(b"Oops\n" * 1000)) == 3
    assert scanner.feed(b"Oops\n" * 1000) == []
    assert (scanner.found, scanner.counted) == ([3], [1997])


def test_what_is_wanted_is_found_however_much_there_was() -> None:
    wanted: list[int] = []
    scanner = Scanner((Pattern.compile("Oops"), Pattern.compile("panic")), 3, wanted.__contains__)
    assert len(scanner.feed(b"Oops\npanic\n" * 1000)) == 6
    wanted.append(1)
    assert [one.pattern for one in scanner.feed(b"Oops\npanic\n")] == [1]
    wanted.clear()
    assert scanner.feed(b"Oops\npanic\n") == []
    assert (scanner.found, scanner.counted) == ([3, 4], [999, 998])
