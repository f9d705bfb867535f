"""What may be worth a look, whatever it was."""

from collections.abc import Iterator, Mapping

from vmfsm.reports import describe_exit, own_words
from vmfsm.timeline import Record

from .case import Case, Clue
from .story import Tail, Wait
from .words import plain, quoted, seconds, times


def consoles(case: Case, at: float, tails: Mapping[str, Tail] | None = None) -> Iterator[Clue]:
    """How long each console had been silent at that time, and its last line."""
    tails = case.story.consoles if tails is None else tails
    if not tails:
        yield Clue("no console had said anything")
    for name, tail in sorted(tails.items(), key=lambda item: -item[1].at):
        lane = f"console:{plain(name)}"
        which = "the console" if len(tails) == 1 else f"console '{plain(name)}'"
        silence = at - tail.at
        said = f"its last line was {quoted(tail.line)}" if tail.line else "it had only said white space"
        how = (
            f"{which} had been silent for {seconds(silence)}"
            if silence > 0.05
            else f"{which} had just spoken"
        )
        prompt = ", which has no end: a prompt, perhaps" if tail.is_prompt and silence > 0.05 else ""
        yield Clue(f"{how}: {said}{prompt}", tail.at, lane, lane)


def last_command(case: Case, at: float) -> Clue | None:
    """The QMP command that had no answer by then."""
    story = case.story
    pending = [record for record in story.unanswered.values() if record.at <= at]
    if pending:
        first = pending[0]
        sent = f"sent {seconds(at - first.at)} before"
        return Clue(f"the monitor had not answered {_name(first)}, {sent}", first.at, "qmp", "qmp")
    refused = story.refused
    if refused is not None and refused.at >= at - 0.05:
        what = f"the monitor's last answer, to {_name(refused)}: {plain(refused.data.get('error'))}"
        return Clue(what, refused.at, "qmp", "qmp")
    return None


def unanswered(case: Case, wait: Wait) -> Clue | None:
    """Of the commands without an answer when a wait was over, the first."""
    if not wait.unanswered or wait.until is None:
        return None
    first = wait.unanswered[0]
    text = f"the monitor had not answered {_name(first)} for {seconds(wait.until - first.at)}"
    return Clue(text, first.at, "qmp", "qmp")


def _name(record: Record) -> str:
    return plain(record.data.get("command"))


def output(case: Case) -> Clue | None:
    """What QEMU said of itself."""
    said = own_words(case.story.output, case.command)
    return Clue(f"QEMU said {quoted(said)}", case.story.output_at, "output", "output") if said else None


def ending(case: Case) -> Clue | None:
    """How QEMU ended."""
    if case.story.exit is None:
        return None
    return Clue(f"QEMU {exit_words(case.story.exit)}", case.story.exit.at, "process")


def exit_words(record: Record) -> str:
    """`ended with status 1`, `died of SIGSEGV (not by vmfsm)`."""
    status = record.data.get("status")
    return describe_exit(status if isinstance(status, int) else None, record.data.get("sent"))


def forced(case: Case) -> Clue | None:
    """By which signals it had to be ended."""
    signals = [record for record in case.story.stops if str(record.data.get("way")).startswith("SIG")]
    if not signals:
        return None
    names = ", then ".join(plain(record.data.get("way")) for record in signals[:3])
    return Clue(f"to end it, vmfsm had to send {names}", signals[0].at, "process")


def steps(case: Case) -> Iterator[Clue]:
    """What the test was at."""
    for record in list(case.story.failed_steps)[-1:]:
        error = plain(record.data.get("error"))
        yield Clue(f"step {quoted(record.data.get('step'))} was left by {error}", record.at, "steps")
    for steps in list(case.story.steps.values())[:3]:
        for record in steps[-1:]:
            step = quoted(record.data.get("step"))
            yield Clue(f"the test was at step {step}, since {case.when(record.at)}", record.at, "steps")


def resets(case: Case) -> Clue | None:
    """By the guest."""
    story = case.story
    if story.first_reset is None or story.last_reset is None:
        return None
    span = seconds(story.last_reset.at - story.first_reset.at)
    text = f"{times(story.resets, 'reset')} by the guest in {span}, the last {case.when(story.last_reset.at)}"
    after = after_what(case)
    last = story.last_words.last()
    if not after and last is not None:
        after = f", after {quoted(last)}"
    is_less = 1 < story.reset_bursts < story.resets
    if is_less:
        after += f"; they came in {times(story.reset_bursts, 'burst')}, each for one reboot, perhaps"
    return Clue(f"{text}{after}", story.first_reset.at, "events", "qmp")


def after_what(case: Case) -> str:
    """What the guest said last whenever it reset, if that repeats."""
    repeated = case.story.last_words.repeated()
    if repeated is None:
        return ""
    line, count, total = repeated
    each = "each time" if count == total else f"{count} of {total} times"
    return f", {each} after its last words {quoted(line)}"


def verdicts(case: Case, but: Record | None = None) -> Iterator[Clue]:
    """Others than the one."""
    for record in case.story.verdicts:
        if record is not but:
            said = message(record)
            words = f": {quoted(said)}" if said else ""
            yield Clue(f"also: {plain(record.data.get('verdict'))}{words}", record.at, "verdicts")


def message(verdict: Record) -> str:
    """A verdict's in words, where it has any."""
    what = verdict.data.get("what")
    return plain(what.get("message") or "") if isinstance(what, Mapping) else ""


def missing(case: Case) -> Iterator[Clue]:
    """What the records do not have."""
    for kind, record in case.story.trouble.items():
        what = "records were lost" if kind == "dropped" else f"the {kind.replace('-', ' ')} is not whole"
        yield Clue(f"{what}: {plain(record.data.get('error') or record.data)}", record.at)
    lost = case.story.console_lost
    if lost is not None:
        yield Clue(f"a reader of a console missed {plain(lost.data.get('bytes'))} bytes", lost.at)
