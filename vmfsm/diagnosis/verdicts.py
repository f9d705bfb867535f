"""Verdicts: somebody has seen that the guest, or QEMU, is lost."""

import re
from collections.abc import Iterator

from vmfsm.timeline import Record

from . import clues
from .case import Case, Clue, Diagnosis
from .words import plain, quoted

_KINDS = {
    "guest-panicked": ("guest-panic", "the guest panicked"),
    "guest-crashloaded": (
        "guest-panic",
        "the guest's kernel crashed, and loaded another",
    ),
    "kernel-panic": ("guest-panic", "the guest's kernel panicked"),
    "kernel-oops": ("guest-panic", "the guest's kernel oopsed"),
    "kernel-lockup": ("guest-lockup", "a CPU of the guest is locked up"),
    "hung-task": ("guest-lockup", "a task of the guest hangs"),
    "rcu-stall": ("guest-lockup", "the guest's kernel is stalled"),
    "watchdog": ("guest-lockup", "the guest did not feed its watchdog"),
    "initramfs": ("guest-boot-failed", "the guest gave up booting, for a shell that nobody is at"),
    "boot-loop": ("boot-loop", "the guest is in a boot loop"),
    "companion-ended": ("companion-ended", "a program that the machine needs beside QEMU is gone"),
    "kvm-error": ("qemu-fault", "KVM could not go on with the guest"),
}
_TRACE = "Call Trace:"
_FUNCTION = re.compile(r"\b([A-Za-z_][\w.]{0,80})\+0x[0-9a-f]+/0x[0-9a-f]+")
"""Of a stack, as Linux prints it (kernel/kallsyms.c, `%pS`)."""
_MOST_FUNCTIONS = 8
_SANITIZERS = frozenset({"kasan", "kmsan", "kfence", "kcsan", "ubsan"})


def lost(case: Case) -> Diagnosis | None:
    """The first verdict that anybody is told of."""
    story = case.story
    if not story.verdicts:
        return None
    verdict = story.verdicts[0]
    at = verdict.at
    kind, what = _named(case, verdict)
    said = clues.message(verdict)
    source = _source(verdict)
    words = f": {quoted(said)} on {source}" if said and source else f": {said}" if said else ""
    wait = case.wait_at(at)
    if kind == "boot-loop":
        words += clues.after_what(case)
    told = [
        *_own_words(case, verdict),
        clues.resets(case) if kind == "boot-loop" else None,
        *clues.verdicts(case, verdict),
        *clues.consoles(case, at),
        clues.output(case),
        clues.ending(case),
        *clues.steps(case),
        *clues.missing(case),
    ]
    return case.found(kind, at, f"{what}{words}, {case.when(at)}{case.meanwhile(wait, at)}", told, wait)


def _named(case: Case, verdict: Record) -> tuple[str, str]:
    name = plain(verdict.data.get("verdict"))
    if name in _KINDS:
        return _KINDS[name]
    if name in _SANITIZERS:
        return "guest-bug", f"the guest's kernel reported a bug ({name})"
    if name.startswith("qemu-"):
        if case.story.exit is not None and not case.story.stops:
            return "qemu-crashed", f"QEMU failed ({name}) and {clues.exit_words(case.story.exit)}"
        return "qemu-fault", f"QEMU reported a fault of its own ({name})"
    return "verdict", f"{plain(verdict.data.get('where'))} said '{name}' of the guest"


def _own_words(case: Case, verdict: Record) -> Iterator[Clue]:
    """What a console said that it was given for, and the call trace after it."""
    said, name = clues.message(verdict), _console(verdict)
    if not said or name is None:
        return
    lane = f"console:{plain(name)}"
    yield Clue(f"console '{plain(name)}' said {quoted(said)}", verdict.at, lane, lane)
    tail = case.story.consoles.get(name)
    _, found, trace = (tail.text if tail else "").partition(_TRACE)
    functions = list(dict.fromkeys(_FUNCTION.findall(trace)))[:_MOST_FUNCTIONS]
    if tail and found and functions:
        yield Clue(f"its call trace: {', '.join(map(plain, functions))}", verdict.at, lane, lane)


def _console(verdict: Record) -> str | None:
    what = verdict.data.get("what")
    source = what.get("source") if isinstance(what, dict) else None
    return source if isinstance(source, str) and source != "output" else None


def _source(verdict: Record) -> str:
    what = verdict.data.get("what")
    source = what.get("source") if isinstance(what, dict) else None
    if not source:
        return ""
    return "QEMU's output" if source == "output" else f"console '{plain(source)}'"
