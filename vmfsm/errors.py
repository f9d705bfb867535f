"""The exceptions of vmfsm.

    VMError
     +-- ConfigError         something given was wrong; nothing was started
     +-- TransitionError     not allowed in this state, or from this thread; nothing has changed
     +-- LaunchError         launch() did not get QEMU up; nothing is left of it
     +-- MachineDied         QEMU ended while this call waited, or before it
     +-- GuestPanicked       the guest panicked while this call waited for it
     +-- AbnormalExit        QEMU ended badly
     +-- MachineTimeout      (also a TimeoutError) the deadline of the call was over
     +-- ConsoleClosed       the console ended while QEMU lives
     +-- ImageError          the qemu-img tool failed
     +-- PluginError         a hook of a plugin raised
          +-- PluginLoadError     a plugin could not be loaded

The qmp plugin adds its own. Where more went wrong than one exception can say, the others are in its
`errors` and in its notes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from .lifecycle import Reason, State


class Evidence(NamedTuple):
    """The last of what was seen before an error. Empty where there is no plugin that knows."""

    console: str = ""
    """Last lines of the console (of all of them, each under its name, where there are several)."""
    output: str = ""
    """Last lines of what QEMU wrote to stdout and stderr."""
    events: tuple[Mapping[str, object], ...] = ()
    """Last QMP events, oldest first."""
    more: Mapping[str, object] = {}
    """What other plugins added, by their own keys; also to be had as attributes."""

    def __getattr__(self, name: str) -> object:
        try:
            return self.more[name]
        except KeyError:
            raise AttributeError(f"no evidence {name!r}: no plugin added it") from None


def printable(text: str) -> str:
    """`text` with everything but line ends and tabs that a terminal would act upon made visible.

    Guest output is hostile: what it says may not move the cursor of whoever reads an error.
    """
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1]
        for char in text.replace("\r\n", "\n")
    )


def cut(text: str, most: int) -> str:
    """`text`, or as much of it as makes `most` characters with the mark that there was more."""
    return text if len(text) <= most else text[: most - 3] + "..."


_LONGEST_MESSAGE = 8_000
_LONGEST_LINE = 400


class VMError(Exception):
    """Root of all that vmfsm raises.

    Message and notes may be shown on a terminal, whoever's words are in them: see `printable`.

    Can be pickled. `machine` is the machine's name, `state` its state when the error arose (both `None`
    where there was none yet), `evidence` what was seen last, `errors` what else went wrong.
    """

    def __init__(
        self,
        message: str = "",
        *,
        machine: str | None = None,
        state: "State | None" = None,
        evidence: Evidence | None = None,
        errors: Iterable[BaseException] = (),
    ) -> None:
        super().__init__(printable(cut(message, _LONGEST_MESSAGE)))
        self.machine = machine
        self.state = state
        self.evidence = Evidence()
        self.errors: tuple[BaseException, ...] = ()
        if evidence is not None:
            self.attach(evidence)
        self.add_errors(errors)

    def attach(self, evidence: Evidence) -> Self:
        """Set `evidence` and show the end of it in the notes."""
        self.evidence = evidence
        if evidence.console:
            self._note_lines("the console's last lines", evidence.console)
        if evidence.output:
            self._note_lines("the end of QEMU's output", evidence.output)
        companions = evidence.more.get("companions")
        if isinstance(companions, Mapping):
            for name, output in companions.items():
                self._note_lines(f"the end of what companion {name} said", str(output))
        verdicts = evidence.more.get("verdicts")
        if isinstance(verdicts, tuple) and verdicts and not isinstance(self, GuestPanicked):
            said = (f"{verdict.kind}: {verdict.what.get('message', '')}" for verdict in verdicts)
            self._note_lines("verdicts on the guest", "\n".join(said))
        if evidence.events:
            names = ", ".join(str(event.get("event")) for event in evidence.events[-8:])
            self.add_note(f"QEMU's last events: {cut(names, _LONGEST_LINE)}")
        return self

    def add_note(self, note: str) -> None:
        """Add what is shown below the message, made visible as that is."""
        super().add_note(printable(note))

    def redact(self, redact: Callable[[str], str]) -> Self:
        """Have `redact` take the secrets out of message and notes, also of its `errors` and its cause."""
        self.args = (redact(str(self)),)
        if hasattr(self, "__notes__"):
            self.__notes__ = [redact(note) for note in self.__notes__]
        for error in (*self.errors, self.__cause__):
            if isinstance(error, VMError):
                error.redact(redact)
        return self

    def _note_lines(self, title: str, text: str, most: int = 12) -> None:
        lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")[-most:]
        shown = (cut(printable(line[: _LONGEST_LINE + 1]), _LONGEST_LINE) for line in lines)
        self.add_note("\n".join([f"{title}:", *(f"  | {line}" for line in shown)]))

    def add_errors(self, errors: Iterable[BaseException]) -> Self:
        """Add what else went wrong, to `errors` and to the notes."""
        for error in errors:
            self.errors += (error,)
            self.add_note(f"also: {describe(error)}")
        return self


def describe(error: BaseException) -> str:
    """`error` in one line: its type and what it says."""
    try:
        text = printable(cut(str(error).replace("\r\n", "\n").partition("\n")[0], _LONGEST_MESSAGE))
    except Exception:  # noqa: BLE001 - a broken `__str__` must not hide the error
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class ConfigError(VMError):
    """Something given was wrong: an argument, an option, an environment variable, a name."""

    def __init__(self, message: str = "", *, field: str | None = None, machine: str | None = None) -> None:
        super().__init__(message, machine=machine)
        self.field = field
        """What was wrong: a parameter, or `options['plugin']['option']`."""


class TransitionError(VMError):
    """The call is not allowed now: in this state, from inside a hook, from this thread or process.

    Nothing has changed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        event: str | None = None,
        allowed: Iterable[str] = (),
        machine: str | None = None,
        state: "State | None" = None,
    ) -> None:
        super().__init__(message, machine=machine, state=state)
        self.event = event
        """What was asked for: an event of the table, or the name of the call."""
        self.allowed = tuple(allowed)
        """The events that the state allows."""


class LaunchError(VMError):
    """`launch()` did not bring QEMU up; QEMU is gone and what was set up is cleaned up."""

    command: tuple[str, ...] = ()
    """The command line as far as it was composed; empty before that."""
    output: str = ""
    """What QEMU said on stdout and stderr, to its last 64 KiB."""
    exit_status: int | None = None
    """`None` where no process was made, or its status could not be had."""


class MachineDied(VMError):
    """QEMU ended, as asked or not, so that what was waited for cannot come any more."""

    exit_status: int | None = None
    reason: "Reason | None" = None


class AbnormalExit(VMError):
    """QEMU ended badly: a status nobody expected, a signal nobody sent, or it had to be forced."""

    exit_status: int | None = None
    reason: "Reason | None" = None


class Verdict(NamedTuple):
    """Something seen that means the guest is lost."""

    kind: str
    """What it is, such as `guest-panicked`."""
    where: str
    """Who has seen it, such as `qmp`."""
    what: Mapping[str, object]
    """What matched; `message` in it, where there is one, says it in words."""


class GuestPanicked(VMError):
    """The guest panicked, or is lost for another reason: a verdict. QEMU may live on; later calls work."""

    verdict: Verdict | None = None


class MachineTimeout(VMError, TimeoutError):
    """The deadline of a call was over first."""

    operation: str = ""
    timeout: float | None = None
    """Seconds, as they counted (scaled)."""


class ConsoleClosed(VMError):
    """The console reached its end while QEMU lives."""


class ImageError(VMError):
    """The `qemu-img` tool is not there, or could not do what it was asked."""

    command: tuple[str, ...] = ()
    """Its command line; empty where the error is the file system's."""
    output: str = ""
    """What it said on stderr."""
    exit_status: int | None = None
    """Or minus the number of a signal; `None` where it was not the tool that failed."""


class PluginError(VMError):
    """Something of a plugin failed: a hook or a clean-up raised, which is the cause, or a companion ended."""

    plugin: str = ""
    hook: str = ""
    """The hook's name, `defer` for a clean-up, `companion` for a companion."""


class PluginLoadError(PluginError):
    """A plugin could not be loaded."""

    entry_point: str | None = None
    """`name = module:attribute` of the entry point, `None` for an object given by the user."""
    distribution: str | None = None
    """The distribution that offers it, with its version."""
