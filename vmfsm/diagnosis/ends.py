"""QEMU's ends that nobody asked for, and those that had to be forced."""

import signal

from vmfsm.reports import own_words
from vmfsm.timeline import Record

from . import clues
from .case import Case, Clue, Diagnosis
from .story import Wait
from .words import plain, quoted, seconds

_CRASHES = {-signal.Signals[f"SIG{name}"] for name in ("SEGV", "ABRT", "BUS", "ILL", "FPE", "TRAP", "SYS")}
_ASKED = frozenset({"requested", "killed", "wedged"})


def ended(case: Case) -> Diagnosis | None:
    """It had been running, and ended without being asked to."""
    story, end = case.story, case.story.exit
    if end is None or not story.has_run or story.reason in _ASKED or _was_forced(case):
        return None
    if any(verdict.at >= end.at for verdict in story.verdicts):
        return None  # read from what QEMU left behind: it is what it ended of
    status = end.data.get("status")
    wait = case.wait_at(end.at)
    if not isinstance(status, int) or isinstance(status, bool):
        return _without_status(case, end, wait)
    if story.state == "stopped" and not _surprised(wait):
        return None
    if story.reason == "oom-killed":
        what = "the kernel's out-of-memory killer killed QEMU (SIGKILL)"
        return _found(case, "qemu-killed", end, what, wait)
    if status == -signal.SIGKILL:
        what = "QEMU was killed from outside (SIGKILL, and not by vmfsm)"
        return _found(case, "qemu-killed", end, what, wait)
    if status in _CRASHES:
        said = own_words(story.output, case.command)
        words = f", after it said {quoted(said)}" if said else ""
        return _found(case, "qemu-crashed", end, f"QEMU crashed: it {clues.exit_words(end)}{words}", wait)
    if status < 0:
        what = f"QEMU was ended from outside: it {clues.exit_words(end)}, which vmfsm did not send"
        return _found(case, "qemu-killed", end, what, wait)
    return _exited(case, end, status, wait)


def _was_forced(case: Case) -> bool:
    return any(str(record.data.get("way")).startswith("SIG") for record in case.story.stops)


def _surprised(wait: Wait | None) -> bool:
    """Somebody waited for something else."""
    return wait is not None and wait.is_of_test


def _exited(case: Case, end: Record, status: int, wait: Wait | None) -> Diagnosis:
    story = case.story
    event = story.shutdown_event.data.get("data") if story.shutdown_event else None
    cause = event.get("reason") if isinstance(event, dict) else None
    by_guest = isinstance(event, dict) and event.get("guest") is True
    if by_guest and status == 0:
        did = "reset itself, which ends QEMU here" if cause == "guest-reset" else "shut itself down"
        return _found(case, "guest-shutdown", end, f"the guest {did}", wait)
    said = own_words(story.output, case.command)
    if cause == "host-signal":
        words = f", and said {quoted(said)}" if said else ""
        what = f"a signal that vmfsm did not send ended QEMU: it {clues.exit_words(end)}{words}"
        return _found(case, "qemu-killed", end, what, wait)
    if said and not by_guest and status:
        what = f"QEMU gave up with status {status}, and said {quoted(said)}"
        return _found(case, "qemu-exit", end, what, wait)
    device = _exit_device(case.command, status)
    if by_guest or device:
        what = f"the guest ended QEMU with status {status}{device}"
        return _found(case, "guest-exit", end, what, wait)
    why = f" ({plain(cause)})" if cause else ""
    return _found(case, "qemu-exit", end, f"QEMU ended by itself with status {status}{why}", wait)


def _exit_device(command: list[str], status: int) -> str:
    """What a guest may have ended QEMU with, by the command line."""
    if any("isa-debug-exit" in word for word in command) and status % 2:
        return f": it wrote {status // 2} to isa-debug-exit"
    if any("semihosting" in word for word in command):
        return ", by semihosting"
    return ""


def _without_status(case: Case, end: Record, wait: Wait | None) -> Diagnosis | None:
    if case.story.state == "stopped":
        return None
    what = "QEMU ended unasked, with a status that the harness threw away (SIGCHLD)"
    return _found(case, "qemu-exit", end, what, wait)


def _found(case: Case, kind: str, end: Record, what: str, wait: Wait | None) -> Diagnosis:
    at = end.at
    told = [
        clues.output(case),
        clues.last_command(case, at),
        *clues.consoles(case, at),
        *clues.verdicts(case),
        clues.resets(case),
        *clues.steps(case),
        *_losses(case),
        *clues.missing(case),
    ]
    return case.found(kind, at, f"{what}, {case.when(at)}{case.meanwhile(wait, at)}", told, wait)


def _losses(case: Case) -> list[Clue]:
    return [
        Clue(
            f"companion {quoted(record.data.get('companion'))} {clues.exit_words(record)}",
            record.at,
            "companions",
        )
        for record in list(case.story.companion_exits)[:3]
    ]


def forced(case: Case) -> Diagnosis | None:
    """It was asked to end, and did not."""
    story = case.story
    if story.reason != "wedged" or story.quit is None:
        return None
    at = story.quit.at
    wait = case.wait_at(at) or next(
        (wait for wait in story.failed_waits if wait.operation == "shutdown"), None
    )
    asked = [record for record in story.stops if not str(record.data.get("way")).startswith("SIG")]
    signals = [record for record in story.stops if str(record.data.get("way")).startswith("SIG")]
    way = f" by {plain(asked[0].data.get('way'))}" if asked else ""
    patience = f" within {seconds(signals[0].at - at)}" if signals else ""
    what = f"QEMU did not end when it was asked to{way}, {case.when(at)}{patience}"
    if signals:
        what += f", and was sent {' and '.join(plain(record.data.get('way')) for record in signals[:3])}"
    told = [standstill(case), clues.last_command(case, signals[0].at if signals else at), clues.output(case)]
    return case.found("shutdown-forced", at, what, [*told, *clues.consoles(case, at)], wait)


def standstill(case: Case) -> Clue | None:
    """Whether it did not even react to SIGTERM: a process that is stopped, or stuck, does not."""
    signals = {str(record.data.get("way")): record for record in case.story.stops}
    if "SIGTERM" not in signals or "SIGKILL" not in signals:
        return None
    at = signals["SIGTERM"].at
    waited = seconds(signals["SIGKILL"].at - at)
    text = f"it did not react to SIGTERM for {waited} either: it seems to be stopped (SIGSTOP), or stuck"
    return Clue(text, at, "process")
