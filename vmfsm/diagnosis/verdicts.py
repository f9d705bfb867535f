"""Verdicts: somebody has seen that the guest, or QEMU, is lost."""

from vmfsm.timeline import Record

from . import clues
from .case import Case, Diagnosis
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


def _source(verdict: Record) -> str:
    what = verdict.data.get("what")
    source = what.get("source") if isinstance(what, dict) else None
    if not source:
        return ""
    return "QEMU's output" if source == "output" else f"console '{plain(source)}'"
