"""What the built-in plugins offer, as types: so that `machine.qmp` has one and the core imports no plugin.

The contracts are in the docstrings of the plugins.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from .errors import Verdict
    from .machine import Machine

EventMatch = tuple[str, Mapping[str, Any] | None]
Event = dict[str, Any]
Path = str | os.PathLike[str]
Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]


class AsyncQMP(Protocol):
    """The twins of `QMP`'s calls for coroutines."""

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any: ...
    async def execute_raw(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> dict[str, Any]: ...
    async def execute_oob(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any: ...
    async def execute_with_fd(
        self,
        fd: int,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any: ...
    async def wait_event(
        self,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        since: Any = None,
        timeout: float | None = 30,
    ) -> Event: ...
    async def wait_any(
        self, events: Sequence[EventMatch], *, since: Any = None, timeout: float | None = 30
    ) -> Event: ...
    async def reconnect(self, timeout: float | None = 30) -> None: ...
    async def gdbstub(self, timeout: float | None = 30) -> str: ...


class QMP(Protocol):
    """`machine.qmp`."""

    @property
    def aio(self) -> AsyncQMP: ...
    @property
    def address(self) -> Any: ...
    @property
    def greeting(self) -> Mapping[str, Any]: ...
    @property
    def version(self) -> tuple[int, int, int]: ...
    @property
    def client(self) -> Any: ...
    @property
    def run_state(self) -> str | None: ...
    @property
    def resets(self) -> int: ...
    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any: ...
    def execute_raw(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> dict[str, Any]: ...
    def execute_oob(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any: ...
    def execute_with_fd(
        self,
        fd: int,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any: ...
    def mark(self) -> Any: ...
    def wait_event(
        self,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        since: Any = None,
        timeout: float | None = 30,
    ) -> Event: ...
    def wait_any(
        self, events: Sequence[EventMatch], *, since: Any = None, timeout: float | None = 30
    ) -> Event: ...
    def events(self, since: Any = None) -> list[Event]: ...
    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]: ...
    def reconnect(self, timeout: float | None = 30) -> None: ...
    def gdbstub(self, timeout: float | None = 30) -> str: ...


class Expected(Protocol):
    """What `expect` found."""

    @property
    def index(self) -> int: ...
    @property
    def match(self) -> Any: ...
    @property
    def before(self) -> Any: ...


class AsyncConsole(Protocol):
    """The twins of `Console`'s calls for coroutines."""

    async def expect(self, *patterns: Pattern, timeout: float | None = 60) -> Expected: ...
    async def send(self, data: str | bytes, *, timeout: float | None = 60) -> None: ...
    async def sendline(self, text: str = "", *, timeout: float | None = 60) -> None: ...


class Console(Protocol):
    """`machine.console`, or one of `machine.consoles`."""

    @property
    def aio(self) -> AsyncConsole: ...
    @property
    def text(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def path(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def lost(self) -> int: ...
    def expect(self, *patterns: Pattern, timeout: float | None = 60) -> Expected: ...
    def send(self, data: str | bytes, *, timeout: float | None = 60) -> None: ...
    def sendline(self, text: str = "", *, timeout: float | None = 60) -> None: ...
    def read(self, n: int = -1) -> str: ...
    def lines(self) -> list[str]: ...
    def mark(self) -> Any: ...
    def since(self, mark: Any) -> str: ...
    def subscribe(self, callback: Callable[[bytes], object]) -> Callable[[], None]: ...
    def socket(self) -> socket.socket: ...
    def file(self, mode: str = "r") -> IO[Any]: ...


class AsyncFDs(Protocol):
    """The twins of `FDs`'s calls for coroutines."""

    async def add(
        self,
        fd_or_path: "int | str | os.PathLike[str]",
        *,
        fdset: int | None = None,
        opaque: str | None = None,
        flags: int | None = None,
        timeout: float | None = 30,
    ) -> str: ...
    async def send(
        self, fd_or_path: "int | str | os.PathLike[str]", name: str, *, timeout: float | None = 30
    ) -> None: ...


class FDs(Protocol):
    """`machine.fds`."""

    @property
    def aio(self) -> AsyncFDs: ...
    def add(
        self,
        fd_or_path: "int | str | os.PathLike[str]",
        *,
        fdset: int | None = None,
        opaque: str | None = None,
        flags: int | None = None,
        timeout: float | None = 30,
    ) -> str: ...
    def send(
        self, fd_or_path: "int | str | os.PathLike[str]", name: str, *, timeout: float | None = 30
    ) -> None: ...


class Log(Protocol):
    """`machine.log`."""

    @property
    def text(self) -> str: ...
    @property
    def path(self) -> str: ...
    def tail(self, n: int = 20) -> str: ...
    def follow(self, *, timeout: float | None = None) -> Iterator[str]: ...
    def subscribe(self, callback: Callable[[bytes], object]) -> Callable[[], None]: ...


class Snapshot(Protocol):
    """What is known of a snapshot."""

    @property
    def name(self) -> str: ...
    @property
    def vm_state_size(self) -> int: ...
    @property
    def when(self) -> datetime: ...
    @property
    def clock(self) -> float: ...
    @property
    def disks(self) -> tuple[str, ...]: ...


class AsyncSnapshots(Protocol):
    """The twins of `Snapshots`' calls for coroutines."""

    async def save(
        self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> None: ...
    async def load(
        self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> None: ...
    async def delete(
        self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> None: ...
    async def list(
        self, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> Sequence[Snapshot]: ...
    async def external(
        self,
        files: "Mapping[str, str | os.PathLike[str]]",
        *,
        overwrite: bool = False,
        timeout: float | None = 60,
    ) -> dict[str, str]: ...


class Snapshots(Protocol):
    """`machine.snapshots`."""

    @property
    def aio(self) -> AsyncSnapshots: ...
    def save(self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60) -> None: ...
    def load(self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60) -> None: ...
    def delete(
        self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> None: ...
    def list(
        self, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> Sequence[Snapshot]: ...
    def external(
        self,
        files: "Mapping[str, str | os.PathLike[str]]",
        *,
        overwrite: bool = False,
        timeout: float | None = 60,
    ) -> dict[str, str]: ...


class Progress(Protocol):
    """How far a migration is."""

    @property
    def status(self) -> str: ...
    @property
    def transferred(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def dirty_rate(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def downtime(self) -> float: ...
    @property
    def error(self) -> str: ...


class AsyncMigration(Protocol):
    """The twins of `Migration`'s calls for coroutines."""

    async def to(
        self, other: "Machine", *, over: Path | None = None, timeout: float | None = 60
    ) -> Progress: ...
    async def start(
        self, other: "Machine", *, over: Path | None = None, timeout: float | None = 30
    ) -> None: ...
    async def wait(self, *, timeout: float | None = 60) -> Progress: ...
    async def cancel(self, *, timeout: float | None = 30) -> Progress: ...
    async def progress(self, *, timeout: float | None = 30) -> Progress: ...
    async def to_file(
        self, path: Path, *, overwrite: bool = False, timeout: float | None = 60
    ) -> Progress: ...
    async def from_file(self, path: Path, *, timeout: float | None = 60) -> Progress: ...


class Migration(Protocol):
    """`machine.migration`."""

    @property
    def aio(self) -> AsyncMigration: ...
    def to(self, other: "Machine", *, over: Path | None = None, timeout: float | None = 60) -> Progress: ...
    def start(self, other: "Machine", *, over: Path | None = None, timeout: float | None = 30) -> None: ...
    def wait(self, *, timeout: float | None = 60) -> Progress: ...
    def cancel(self, *, timeout: float | None = 30) -> Progress: ...
    def progress(self, *, timeout: float | None = 30) -> Progress: ...
    def to_file(self, path: Path, *, overwrite: bool = False, timeout: float | None = 60) -> Progress: ...
    def from_file(self, path: Path, *, timeout: float | None = 60) -> Progress: ...


class Expectation(Protocol):
    """A scope in which verdicts of some kinds are no trouble."""

    @property
    def kinds(self) -> tuple[str, ...]: ...
    @property
    def verdicts(self) -> "tuple[Verdict, ...]": ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Verdicts(Protocol):
    """`machine.verdicts`."""

    @property
    def seen(self) -> "tuple[Verdict, ...]": ...
    @property
    def counts(self) -> Mapping[str, int]: ...
    def expected(self, *kinds: str, timeout: float | None = 30) -> Expectation: ...
    def allowed(self, *kinds: str) -> Expectation: ...
