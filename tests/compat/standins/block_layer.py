"""Stands for the block layer's tests: their library, a subclass that knows much of its base class.

Where theirs says `-accel qtest` this says `-accel tcg`: not every QEMU has the former.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from qemu.machine import qtest
from qemu.qmp.qmp_client import ExecuteError

QEMU = os.environ.get("QEMU_PROG", "qemu-system-x86_64")
OPTIONS = ["-nodefaults", "-display", "none", "-machine", "pc"]


class TookTooLong(Exception):
    """What a `Timeout` raises."""


class Timeout:
    """Raises in the main thread, wherever it is, when the body takes too long."""

    def __init__(self, seconds: float, errmsg: str = "Timeout") -> None:
        self.seconds = seconds
        self.errmsg = errmsg

    def __enter__(self) -> Self:
        self.before = signal.signal(signal.SIGALRM, self.timeout)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)

    def timeout(self, signum: int, frame: FrameType | None) -> None:
        raise TookTooLong(self.errmsg)


def log(message: Any) -> None:
    """Print for the comparison with the reference output; JSON as it is."""
    print(message if isinstance(message, str) else json.dumps(message))


def filter_event(event: dict[str, Any]) -> dict[str, Any]:
    """Events are changed in place."""
    event["timestamp"]["seconds"] = "SECS"
    event["timestamp"]["microseconds"] = "USECS"
    return event


def filter_log(text: str) -> str:
    """What qtest says when it begins and ends is no output of a test."""
    text = re.sub(r"\A\[I \d+\.\d+\] OPENED\n", "", text)
    return re.sub(r"\[I \+\d+\.\d+\] CLOSED\n?\Z", "", text)


class VM(qtest.QEMUQtestMachine):
    """A machine that no guest runs on, and that has whatever block devices the test gives it."""

    print_qemu = False

    def __init__(self, directory: str, path_suffix: str = "", **options: Any) -> None:
        name = f"qemu{path_suffix}-{os.getpid()}"
        super().__init__(QEMU, OPTIONS, name=name, base_temp_dir=directory, qmp_timer=15.0, **options)
        self.directory = directory
        self.num_drives = 0
        self.reports: list[str] = []

    @property
    def _base_args(self) -> list[str]:
        args = super()._base_args
        args[args.index("qtest", args.index("-accel"))] = "tcg"
        return ["-name", "first,debug-threads=on", *args, "-seed", "1"]

    def _pre_launch(self) -> None:
        super()._pre_launch()
        if self.print_qemu:
            self._close_qemu_log_file()

    def _post_shutdown(self) -> None:
        super()._post_shutdown()
        if self._popen:  # theirs looks for the report of valgrind, by pid, and removes it if all is well
            self.reports.append(f"{self._popen.pid} {self.exitcode()}")

    # -- what is added to the command line -------------------------------------------------------------------

    def add_object(self, opts: str) -> "VM":
        self._args.append("-object")
        self._args.append(opts)
        return self

    def add_device(self, opts: str) -> "VM":
        self._args.append("-device")
        self._args.append(opts)
        return self

    def add_blockdev(self, opts: str | Sequence[str]) -> "VM":
        self._args.append("-blockdev")
        self._args.append(opts if isinstance(opts, str) else ",".join(opts))
        return self

    def add_drive(self, path: str, opts: str = "") -> "VM":
        options = [f"if=none,id=drive{self.num_drives},format=raw,file={path}", *([opts] if opts else [])]
        self._args.append("-drive")
        self._args.append(",".join(options))
        if "virtio-scsi" not in self._args:
            self.num_drives += 1
        return self

    def add_incoming(self, address: str) -> "VM":
        self._args.append("-incoming")
        self._args.append(address)
        return self

    def add_paused(self) -> "VM":
        self._args.append("-S")
        return self

    # -- commands --------------------------------------------------------------------------------------------

    def hmp(self, line: str) -> dict[str, Any]:
        reply: dict[str, Any] = self.qmp("human-monitor-command", command_line=line)
        return reply

    def qmp_log(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        log({"execute": cmd, "arguments": arguments} if arguments else {"execute": cmd})
        reply: dict[str, Any] = self.qmp(cmd, **arguments)
        log(reply)
        return reply

    def run_job(self, job: str, wait: float = 60.0) -> str | None:
        """Answer what the job asks for until there is none; what was wrong with it."""
        match_id = {"data": {"id": job}}
        match_device = {"data": {"device": job}}
        events = [
            ("JOB_STATUS_CHANGE", match_id),
            ("BLOCK_JOB_COMPLETED", match_device),
            ("BLOCK_JOB_CANCELLED", match_device),
            ("BLOCK_JOB_ERROR", match_device),
            ("BLOCK_JOB_READY", match_device),
            ["BLOCK_JOB_PENDING", match_id],
        ]
        error = None
        while True:
            event = filter_event(self.events_wait(events, timeout=wait))
            if event["event"] != "JOB_STATUS_CHANGE":
                log(event)
                continue
            status = event["data"]["status"]
            if status == "aborting":
                jobs = self.qmp("query-jobs")["return"]
                error = next(found["error"] for found in jobs if found["id"] == job)
            elif status == "pending":
                self.qmp_log("job-finalize", id=job)
            elif status == "concluded":
                self.qmp_log("job-dismiss", id=job)
            elif status == "null":
                return error

    def wait_until_completed(self, job: str) -> dict[str, Any]:
        """Look at all events until the job is over; the others are nobody's."""
        while True:
            for event in self.get_qmp_events(wait=True):
                if event["event"] == "BLOCK_JOB_COMPLETED" and event["data"]["device"] == job:
                    assert self.event_match(event, {"data": {"device": job, "len": None}})
                    return dict(event)

    def wait_with_questions(self, name: str) -> dict[str, Any]:
        """Wait for an event, and keep QEMU busy meanwhile."""
        while True:
            try:
                event = self.event_wait(name, timeout=0.1)
            except asyncio.TimeoutError:  # noqa: UP041 - as it is written there
                self.cmd("query-block-jobs")
                continue
            assert event is not None
            return dict(event)


@contextmanager
def vms(directory: str, *suffixes: str) -> Iterator[Mapping[str, VM]]:
    """Several of them, launched."""
    made = {suffix: VM(directory, suffix) for suffix in suffixes}
    try:
        for vm in made.values():
            vm.launch()
        yield made
    finally:
        for vm in made.values():
            vm.shutdown()


def verify(condition: object, what: str) -> None:
    if not condition:
        sys.exit(f"not so: {what}")


__all__ = [
    "VM",
    "ExecuteError",
    "Timeout",
    "TookTooLong",
    "filter_event",
    "filter_log",
    "log",
    "verify",
    "vms",
]
