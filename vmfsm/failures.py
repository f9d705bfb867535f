"""Whether a launch counts as failed, and why: in one line, for reports."""

from .errors import ConfigError, GuestPanicked, MachineDied, MachineTimeout, Verdict, cut, describe, printable
from .lifecycle import Reason

_LONGEST = 1_000
_OF_OURS = frozenset({Reason.REQUESTED, Reason.KILLED})


class Failures:
    """What speaks for it that one launch has failed. From any thread; nothing here waits.

    The first thing that does is why: what follows from it is told after it.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._wait: str | None = None
        self._call: str | None = None

    @property
    def why(self) -> str | None:
        """In one line; `None` where nothing speaks for it."""
        return self._first.get("why", self._wait or self._call)

    @property
    def is_certain(self) -> bool:
        """It stays so, whatever comes."""
        return bool(self._first)

    def note(self, why: str) -> str:
        """The launch has failed, for this or for what was there before; `why` in one line."""
        why = one_line(why)
        self._first.setdefault("why", why)
        return why

    def waited(self, error: BaseException | None, timeout: float | None, *, of_guest: bool) -> None:
        """A call of the test has ended: the last one tells whether that was a failure.

        None is one that only looked (a timeout of 0), and one that was ended together with the machine
        because somebody wanted that. That QEMU answers says nothing of the guest: a wait for the guest in
        vain is made up for by another such wait only.
        """
        if not of_guest:
            self._called(error, timeout)
            return
        match error:
            case None:
                self._wait = self._call = None
            case MachineTimeout() if timeout == 0:
                pass
            case MachineDied() if error.reason in _OF_OURS:
                pass
            case MachineTimeout() | MachineDied() | GuestPanicked():
                self._wait = one_line(describe(error))

    def _called(self, error: BaseException | None, timeout: float | None) -> None:
        """QEMU was asked for something: any answer is one, and how it ends the machine itself tells."""
        if isinstance(error, MachineTimeout):
            if timeout != 0:
                self._call = one_line(describe(error))
        elif error is None or (isinstance(error, Exception) and not isinstance(error, MachineDied)):
            self._call = None


def words_of(error: object) -> str:
    """What somebody says that went wrong: an exception, or a text.

    :raises ConfigError: for anything else, and for a text without a word.
    """
    if isinstance(error, BaseException):
        return describe(error)
    if not isinstance(error, str) or not error.strip():
        raise ConfigError(f"a failure is an exception or a text, not {error!r}", field="error")
    return error


def words_of_verdict(verdict: Verdict) -> str:
    """The same of a verdict."""
    message = verdict.what.get("message")
    return f"{verdict.kind} (seen by {verdict.where}){f': {message}' if message else ''}"


def one_line(text: str) -> str:
    """`text` without ends of lines and what a terminal would act upon, of bounded length."""
    return cut(printable(" ".join(text[: 4 * _LONGEST].split())), _LONGEST)
