"""A helper process beside QEMU, such as swtpm or virtiofsd: described on the plan, started, ended, reaped."""

import asyncio
import contextlib
import os
import re
import signal
import stat
from collections.abc import Callable, Coroutine, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import IO, Any, cast

from .config import check_environment, check_name, check_strings
from .deadline import Deadline
from .descriptors import Closable, check_fd
from .errors import ConfigError
from .iothread import outcome
from .logpaths import open_for_log
from .paths import check_path
from .process import REAP, Process, environment, find_binary

Ready = str | os.PathLike[str] | re.Pattern[str] | Callable[[], object] | None
"""How to tell that a companion is ready; see `LaunchPlan.companion`."""

Call = Callable[[Callable[[], object]], Coroutine[Any, Any, object]]

_TAIL = 64 * 1024
_MOST = 1024 * 1024
"""Bytes of its output that are searched at one look, so that a flood holds up nobody else."""
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.02
"""Seconds between two looks whether it is ready: growing from the first to the last, by so little each time
that it is noticed a tenth later than it took, or a millisecond, at most."""
# proc_net_unix(5) has no page of its own; these are <linux/net.h>'s.
_ACCEPTS = 0x10000
_DATAGRAM = "0002"


class Companion:
    """A helper process of one launch. Its attributes may be read from any thread; they never wait.

    Made by `LaunchPlan.companion`, which has the meaning of the parameters.
    """

    def __init__(
        self,
        plugin: str,
        argv: Sequence[str],
        name: str | None,
        ready: Ready,
        env: Mapping[str, str | None] | None,
        fds: Sequence[int | Closable],
    ) -> None:
        self.plugin = plugin
        """The plugin that asked for it."""
        self.command = check_strings("argv", argv)
        if not self.command:
            raise ConfigError("argv must hold a program, and is empty", field="argv")
        self.name = check_name(os.path.basename(self.command[0]) if name is None else name)
        self.log = ""
        """The file with its output; empty before it is started."""
        self.exit_status: int | None = None
        """As of `Machine.exit_status`; `None` as long as it lives."""
        self._ready = _check_ready(ready)
        self._env = check_environment(env)
        self.fds, self.given = _check_fds(fds)
        self._process: Process | None = None
        self._gone: asyncio.Future[None] | None = None
        self._log_start = 0
        self._searched = 0
        self._window = b""
        self._last_output: str | None = None

    def __repr__(self) -> str:
        return f"<Companion {self.name} of {self.plugin!r} pid={self.pid} exit_status={self.exit_status}>"

    @property
    def title(self) -> str:
        """For messages: its name, and whose it is."""
        return f"companion {self.name!r} of plugin {self.plugin!r}"

    @property
    def awaited(self) -> str:
        """What makes it ready, for messages."""
        match self._ready:
            case None:
                return "it is being started"
            case re.Pattern() as pattern:
                return f"its output does not have {pattern.pattern!r}"
            case str() | os.PathLike() as path:
                return f"{os.fspath(path)!r} is not there, or nobody listens"
            case _:
                return "its function does not say so"

    @property
    def pid(self) -> int | None:
        """Its process id while it is alive."""
        return None if self._process is None or self._process.ended else self._process.pid

    @property
    def output(self) -> str:
        """The last 64 KiB of what it has written to stdout and stderr in this launch."""
        if self._last_output is not None:
            return self._last_output
        if not self.log:
            return ""
        with contextlib.suppress(OSError), _open_to_read(self.log) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, end - _TAIL))
            return _decode(file.read(_TAIL))
        return ""

    # -- for the launch, on the I/O thread ------------------------------------------------------------------

    def spawn(self, log: str, mark: Mapping[str, str], ended: Callable[["Companion"], object]) -> None:
        """Start it; `ended` is called when it has ended, for whatever reason.

        :raises OSError: as the system says.
        :raises ConfigError: for a descriptor that was closed meanwhile.
        """
        for fd in self.fds:  # before anything else gets the number of one that was closed meanwhile
            check_fd(fd, field="fds")
        env = environment({**self._env, **mark})
        executable = find_binary(self.command[0], env.get("PATH"))
        gone = self._gone = asyncio.get_running_loop().create_future()

        def on_exit(status: int | None) -> None:
            self.exit_status = status
            self._last_output = self.output
            gone.set_result(None)
            ended(self)

        output = open_for_log(log)
        try:
            os.set_blocking(output, True)  # it is the companion's
            self.log = log
            self._log_start = self._searched = os.fstat(output).st_size
            self._process = Process.spawn(
                self.command,
                executable=executable,
                env=env,
                cwd=None,
                fds=self.fds,
                inherit_fds=False,
                output=output,
                on_exit=on_exit,
            )
        finally:
            os.close(output)
        self.close_given()

    def close_given(self) -> None:
        """Close our copies of what it was given for good."""
        while self.given:
            with contextlib.suppress(Exception):  # somebody closed it already, say
                self.given.pop().close()

    @property
    def has_ended(self) -> bool:
        """Whether it was started, and is gone."""
        return self._gone is not None and self._gone.done()

    async def until_ready(self, call: Call) -> bool:
        """Wait until it is ready; `False` where it ended before that.

        :param call: calls a plain function where plain hooks are called; what it returned.
        """
        assert self._gone is not None
        pause = _FIRST_LOOK
        while not self.has_ended:
            if await self._look(call):
                return not self.has_ended
            await asyncio.wait({self._gone}, timeout=pause)
            pause = min(1.1 * pause, _LAST_LOOK)
        return False

    async def _look(self, call: Call) -> object:
        """Whether it is ready now."""
        match self._ready:
            case None:
                return True
            case re.Pattern() as pattern:
                return pattern.search(self._news())
            case str() | os.PathLike() as path:
                return _is_there(os.fspath(path))
            case function if _is_async(function):
                return await self._ask(cast("Callable[[], Coroutine[Any, Any, object]]", function))
            case function:
                return await call(function)

    def _news(self) -> str:
        """What it has said since the last look, behind the 64 KiB before: all of it is seen, however much."""
        with contextlib.suppress(OSError), _open_to_read(self.log) as file:
            if file.seek(0, os.SEEK_END) < self._searched:  # it was truncated
                self._searched = self._log_start
            file.seek(self._searched)
            data = file.read(_MOST)
            self._searched += len(data)
            self._window = self._window[-_TAIL:] + data
        return _decode(self._window)

    async def _ask(self, function: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        assert self._gone is not None
        asking = asyncio.ensure_future(outcome(function()))
        first: set[asyncio.Future[Any]] = {asking, self._gone}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()
        if not asking.done():
            return False
        error, answer = asking.result()
        if error is not None:
            raise error
        return answer is not False

    async def end(self, limit: Deadline, reserve: float) -> bool:
        """Send SIGTERM, then SIGKILL, and wait until it is reaped.

        SIGKILL comes when no more than `reserve` seconds of `limit` are left.

        :returns: whether it went without that.
        """
        if self._process is None or self._gone is None:
            return True
        if limit.nap(reserve) and self._process.signal(signal.SIGTERM):
            await limit.first({self._gone}, reserve)
        was_killed = not self.has_ended and self._process.signal(signal.SIGKILL)
        await asyncio.wait({self._gone}, timeout=REAP)
        return not was_killed


def _open_to_read(path: str) -> IO[bytes]:
    """The same for reading, from any thread: a signal handler may raise here, and leave no descriptor."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"not a file: {path}")
    return open(path, "rb")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _is_async(function: object) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _check_fds(fds: object) -> tuple[list[int], list[Closable]]:
    """The numbers of all of them, and those that are given for good."""
    if isinstance(fds, str | bytes) or not isinstance(fds, Sequence):
        raise ConfigError(
            f"fds must be a sequence of descriptors, sockets and files, not {fds!r}", field="fds"
        )
    given = [cast("Closable", end) for end in fds if hasattr(end, "fileno")]
    numbers = [end.fileno() if hasattr(end, "fileno") else end for end in fds]
    return [check_fd(number, field="fds") for number in numbers], given


def _check_ready(ready: object) -> Ready:
    is_pattern = isinstance(ready, re.Pattern) and isinstance(ready.pattern, str)
    if isinstance(ready, str | os.PathLike):
        return check_path(ready, field="ready")
    if ready is None or is_pattern or callable(ready):
        return cast("Ready", ready)
    raise ConfigError(
        f"ready must be a path, a compiled pattern of str, a function or None, not {ready!r}", field="ready"
    )


def _is_there(path: str) -> bool:
    """Whether there is something at `path`; at a socket, whether somebody listens.

    Found without connecting, since many such programs serve whoever comes first, and nobody else.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return True
    except OSError:
        return False
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            sockets = [line.rstrip("\n").split(maxsplit=7) for line in table]
    except OSError:  # not Linux: that it is there has to do
        return True
    return any(
        len(socket) == 8
        and (socket[4] == _DATAGRAM or int(socket[3], 16) & _ACCEPTS)
        and _may_be(socket[7], path)
        for socket in sockets[1:]
    )


def _may_be(bound: str, path: str) -> bool:
    """Whether a socket that was bound to a path of this name may be the one at `path`.

    A path may be written in more than one way, its last part in one only. What it leads to is another socket,
    of another machine, say, or is not to be seen from here: it may be as seen from another directory or root.
    """
    if os.path.basename(bound) != os.path.basename(path):
        return False
    try:
        return not os.path.isabs(bound) or os.path.samefile(bound, path)
    except OSError:
        return True
