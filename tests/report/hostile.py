"""Recordings of guests that mean harm: what they print, and where else it can turn up."""

import contextlib
import json
from pathlib import Path
from typing import Any

from vmfsm_plugins.qmp import QMPCommandError

from tests.plugins.fake_console import program
from tests.waiting import until
from vmfsm import Machine, recording
from vmfsm.testing import FakeQEMU, actions

MARKUP = {
    "script": "<script>alert('script')</script>",
    "end of the script": "</script><script>alert('end')</script>",
    "comment": "<!-- <script>",
    "end of the comment": "--><img src=x onerror=alert('comment')>",
    "attribute": "\"'><img src=x onerror=alert('attribute')>",
    "handler": "' onfocus=alert('handler') autofocus tabindex=0 x='",
    "vector": "<svg onload=alert('vector')><use href=data:image/svg+xml,x></svg>",
    "style": "</style><style>* { display: none !important; background: url(https://example.com/) }</style>",
    "title": "</title></textarea></pre></template><base href=https://example.com/>",
    "redirection": "<meta http-equiv=refresh content='0;url=https://example.com/'>",
    "link": "<a href=\"javascript:alert('link')\">javascript:alert('link')</a> file:///etc/passwd",
    "entity": "&lt;script&gt; &#60;script&#62; &amp;amp;",
    "template": "{{7*7}} {% raw %} ${7*7} #{7*7} <%= 7*7 %> {{ ''.__class__ }}",
}
UNSEEN = {
    "override": "\u202egnp.exe\u202c",
    "isolates": "\u2066left\u2067right\u2068first",  # without an end
    "marks": "\u200eleft\u200fright\u061cletter",
    "embedding": "\u202bembedded\u202atwice",
    "clear": "\x1b[2J\x1b[1;1H\x1b[31mred\x1b[0m",
    "terminal's title": "\x1b]0;owned\x07\x1b]52;c;Y3VybA==\x1b\\",
    "hyperlink": "\x1b]8;;https://example.com/\x1b\\click\x1b]8;;\x1b\\",
    "question": '\x1b[6n\x1bP$q"p\x1b\\',
    "C1": "\x9b31mred\x9d0;title\x9c\x85",
    "NUL": "nul\x00nul\x7f",
    "overwriting": "fine\rowned\x08\x08",
    "vertical": "lines\x0b\x0c\u2028\u2029paragraph",
    "zero width": "zero\u200bwidth\ufeff\u00ad\u2060\U000e0041\U000e0020",
}
SEEN = {
    "tower": "Z" + "\u0300\u0489\u0336\u20dd" * 100 + "algo",
    "right to left": "שלום عالم 123",
    "wide": "𒐫𒈙꧅﷽ 😀" * 5,
    "long": "x" * 5_000,
    "spaces": " " * 500 + "after",
}
SURROGATES = "half \ud83d, other half \udc00, \ud800\ud800"
"""In JSON only: no character of a console is one."""
WORDS = {**MARKUP, **UNSEEN, **SEEN}
ALL = " ".join([*MARKUP.values(), *UNSEEN.values(), SURROGATES, *SEEN.values()])
KEPT = frozenset({"format", "begun", "event", "source", "dest", "outcome", "hook", "way"})
"""What has a meaning by its words: with others it would be left out, or be something else."""
HALF = b"half a character: \xf0\x9f"
HARMLESS = "a line that means no harm"


def recorded(directory: Path) -> Path:
    """The recording of a machine whose guest prints all of them, and stops amid a character.

    Its monitor answers, refuses and tells events with the same, QEMU writes it, the test has it in its steps.
    """
    printed = [f"{name}: {word}\r\n" for name, word in WORDS.items()] + [f"{HARMLESS}\r\n"]
    said = "".join(printed).encode() + HALF
    words = ALL.replace(SURROGATES, "")
    fake = FakeQEMU(
        # In two pieces, one of which ends amid a character.
        ready=[actions.say(said[:-3000]), actions.say(said[-3000:]), actions.output(said)],
        on={
            "query-name": [actions.emit("WATCHDOG", {"action": words, words: [words]}), actions.reply()],
            "stop": [actions.refuse(words, error_class="GenericError")],
        },
    )
    with (
        fake,
        Machine(fake.binary, ["-serial", "null"], options={"recorder": {"directory": directory}}) as vm,
    ):
        vm.launch()
        with vm.trace(ALL, text=ALL):
            vm.note(ALL, value=ALL)
            vm.qmp.execute("query-name")
            with contextlib.suppress(QMPCommandError):
                vm.qmp.execute("stop", {"why": words})
        until(lambda: "half a character" in vm.console.text)
    return _only_file(directory)


def spread(path: Path, to: Path) -> Path:
    """A recording that somebody tampered with: all texts in it, its header's too, have ALL behind them."""
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    to.write_text("".join(json.dumps(_spread(line)) + "\n" for line in lines), "ascii")
    return to


def _spread(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _spread(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_spread(one, key) for one in value]
    return f"{value} {ALL}" if isinstance(value, str) and key not in KEPT | {"kind"} else value


def flood(directory: Path, code: str, last: str) -> Path:
    """The recording of a machine whose guest does this, and has this as its last word."""
    options = {"recorder": {"directory": directory}}
    with Machine("true", wrapper=program(code), display=None, block=["qmp"], options=options) as vm:
        vm.launch()
        vm.console.expect(last, timeout=100)
        vm.kill()
    return _only_file(directory)


def _only_file(directory: Path) -> Path:
    [path] = directory.glob("*.jsonl")
    assert not recording.read(path).problems
    return path
