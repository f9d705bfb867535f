"""What `FakeQEMU` does, seen on its own sockets: nothing of vmfsm is between."""

import contextlib
import errno
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import LIMIT, catches, is_alive, until
from vmfsm import ConfigError, TransitionError
from vmfsm.testing import FakeQEMU, actions
from vmfsm.testing import actions as do
from vmfsm.testing.actions import Action

MIB = 1024 * 1024


class Peer:
    """A process with a monitor and a console, and the other ends of both."""

    def __init__(self, binary: str, *args: str) -> None:
        self.monitor, monitor = socket.socketpair()
        self.console, console = socket.socketpair()
        with monitor, console:
            numbers = monitor.fileno(), console.fileno()
            self.process = subprocess.Popen(
                [
                    binary,
                    *("-display", "none", "-M", "none", "-nodefaults"),
                    *("-chardev", f"socket,id=m,fd={numbers[0]}", "-mon", "chardev=m,mode=control"),
                    *("-chardev", f"socket,id=c,fd={numbers[1]}", "-serial", "chardev:c"),
                    *args,
                ],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        self.monitor.settimeout(LIMIT)
        self.console.settimeout(LIMIT)
        self.lines = self.monitor.makefile("rb")

    def read(self) -> Any:
        """The next message; `None` at the end of the file."""
        line = self.lines.readline()
        return json.loads(line) if line else None

    def tell(self, command: str, number: object = None, **more: object) -> None:
        message = {"execute": command, **({} if number is None else {"id": number}), **more}
        self.monitor.sendall(json.dumps(message).encode())

    def ask(self, command: str, number: object = None) -> Any:
        self.tell(command, number)
        return self.read()

    def negotiate(self) -> "Peer":
        assert "QMP" in self.read()
        assert self.ask("qmp_capabilities") == {"return": {}}
        return self

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def output(self) -> tuple[bytes, bytes]:
        return self.process.communicate(timeout=LIMIT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for end in (self.lines, self.monitor, self.console):
            end.close()


MakePeer = Callable[..., Peer]


@pytest.fixture
def peer() -> Iterator[MakePeer]:
    """Runs a fake with these points, or the binary that is named; with more arguments for QEMU."""
    with contextlib.ExitStack() as stack:

        def make(*args: str, binary: str | None = None, **points: Any) -> Peer:
            if binary is None:
                binary = stack.enter_context(FakeQEMU(**points)).binary
            made = Peer(binary, *args)
            stack.callback(made.close)
            return made

        yield make


# -- as QEMU ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fake", "real"])
def either(request: pytest.FixtureRequest, peer: MakePeer, qemu: str) -> MakePeer:
    """Both binaries: what is true of one is true of the other."""
    return lambda *args: peer(*args, binary=qemu if request.param == "real" else None)


def event(message: Any) -> tuple[str, Any]:
    assert set(message["timestamp"]) == {"seconds", "microseconds"}
    assert abs(message["timestamp"]["seconds"] - time.time()) < LIMIT
    return message["event"], message.get("data")


def error(message: Any) -> tuple[str, str, Any]:
    return message["error"]["class"], message["error"]["desc"], message.get("id")


class TestAsQEMU:
    def test_greeting_and_negotiation(self, either: MakePeer) -> None:
        vm = either()
        greeting = vm.read()
        assert greeting["QMP"]["capabilities"] == ["oob"]
        assert set(greeting["QMP"]["version"]["qemu"]) == {"major", "minor", "micro"}
        refused = "Expecting capabilities negotiation with 'qmp_capabilities'"
        assert error(vm.ask("query-status", 1)) == ("CommandNotFound", refused, 1)
        assert vm.ask("qmp_capabilities", "a") == {"return": {}, "id": "a"}
        refused = "Capabilities negotiation is already complete, command ignored"
        assert error(vm.ask("qmp_capabilities", [2])) == ("CommandNotFound", refused, [2])
        assert vm.ask("query-version", 3) == {"return": greeting["QMP"]["version"], "id": 3}

    def test_run_state(self, either: MakePeer) -> None:
        vm = either().negotiate()
        for command, said in (("stop", "STOP"), ("cont", "RESUME")):
            assert event(vm.ask(command, 1)) == (said, None)
            assert vm.read() == {"return": {}, "id": 1}
            assert vm.ask(command) == {"return": {}}, "a second time there is no event"
            status = vm.ask("query-status")["return"]
            assert (status["status"], status["running"]) == {
                "STOP": ("paused", False),
                "RESUME": ("running", True),
            }[said]

    def test_not_started(self, either: MakePeer) -> None:
        vm = either("-S").negotiate()
        assert vm.ask("query-status")["return"]["status"] == "prelaunch"
        assert event(vm.ask("cont"))[0] == "RESUME"
        assert vm.read() == {"return": {}}
        assert vm.ask("query-status")["return"]["status"] == "running"

    def test_reset_and_power_button(self, either: MakePeer) -> None:
        vm = either().negotiate()
        by_host = {"guest": False, "reason": "host-qmp-system-reset"}
        assert event(vm.ask("system_reset")) == ("RESET", by_host)
        assert vm.read() == {"return": {}}
        assert event(vm.ask("system_powerdown")) == ("POWERDOWN", None)
        assert vm.read() == {"return": {}}
        assert vm.ask("query-status")["return"]["status"] == "running"

    def test_quit(self, either: MakePeer) -> None:
        vm = either().negotiate()
        by_quit = {"guest": False, "reason": "host-qmp-quit"}
        assert event(vm.ask("quit", 1)) == ("SHUTDOWN", by_quit)
        assert vm.read() == {"return": {}, "id": 1}
        assert vm.read() is None
        assert vm.wait() == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_signals(self, either: MakePeer, number: signal.Signals) -> None:
        vm = either().negotiate()
        vm.process.send_signal(number)
        by_signal = {"guest": False, "reason": "host-signal"}
        assert event(vm.read()) == ("SHUTDOWN", by_signal)
        assert vm.read() is None
        assert vm.wait() == 0
        assert f"terminating on signal {number:d}".encode() in vm.output()[1]

    def test_what_is_no_command(self, either: MakePeer) -> None:
        vm = either().negotiate()
        assert error(vm.ask("nix", 1)) == ("CommandNotFound", "The command nix has not been found", 1)
        for text, said in (
            (b"[1]", "QMP input must be a JSON object"),
            (b'"x"', "QMP input must be a JSON object"),
            (b'{"id": 1}', "QMP input lacks member 'execute'"),
            (b"nonsense\n", "JSON parse error"),
        ):
            vm.monitor.sendall(text)
            assert error(vm.read())[1].startswith(said)
        assert vm.ask("query-status")["return"]["running"]

    def test_messages_are_a_stream(self, either: MakePeer) -> None:
        """Nothing between them, anything between them, and in pieces that end anywhere."""
        vm = either().negotiate()
        text = (
            '{"execute":"query-status","id":"ä€"}{"execute": "query-status", "id": 1.5}\r\n\n  '
            '{"id": {"a": [true, null, "}{\\u00e4"]},\n"execute": "query-status"}'
        )
        for byte in text.encode():
            vm.monitor.sendall(bytes([byte]))
        expected = ["ä€", 1.5, {"a": [True, None, "}{ä"]}]
        assert [vm.read()["id"] for _ in range(3)] == expected
        vm.monitor.sendall(text.encode() * 50)
        assert [vm.read()["id"] for _ in range(150)] == expected * 50

    def test_a_monitor_that_listens_has_one_client_at_a_time(self, either: MakePeer, tmp_path: Path) -> None:
        path = str(tmp_path / "a,b")
        chardev = f"socket,id=l,path={path.replace(',', ',,')},server=on,wait=off"
        vm = either("-chardev", chardev, "-mon", "chardev=l,mode=control").negotiate()
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect(path)
            assert first.recv(1) == b"{"
            second.connect(path)
            assert select.select([second], [], [], 0.1)[0] == []
            first.close()
            second.settimeout(LIMIT)
            with second.makefile("rb") as lines:
                assert b"QMP" in lines.readline()
                second.sendall(b'{"execute": "qmp_capabilities"}{"execute": "stop"}')
                assert [b"return" in lines.readline() for _ in range(3)] == [True, False, True]
        assert event(vm.read())[0] == "STOP", "all monitors are told"

    def test_version(self, qemu: str) -> None:
        with FakeQEMU(version=(7, 2, 1)) as fake:
            said = [subprocess.check_output([binary, "-version"]) for binary in (fake.binary, qemu)]
        assert [re.match(rb"QEMU emulator version \d+\.\d+\.\d+ ", text) is not None for text in said] == [
            True,
            True,
        ]
        assert b"7.2.1" in said[0]


# -- to order -----------------------------------------------------------------------------------------------


class TestGreeting:
    def test_never(self, peer: MakePeer) -> None:
        vm = peer(greeting=[])
        until(lambda: catches(vm.process.pid, signal.SIGTERM))
        assert select.select([vm.monitor], [], [], 0.1)[0] == []

    def test_late(self, peer: MakePeer) -> None:
        began = time.monotonic()
        vm = peer(greeting=[do.wait(0.3), do.as_qemu()])
        vm.negotiate()
        assert 0.3 <= time.monotonic() - began < LIMIT

    def test_half_and_the_end(self, peer: MakePeer) -> None:
        vm = peer(greeting=[do.send('{"QMP": {'), do.exit_with(5)])
        assert vm.lines.read() == b'{"QMP": {'
        assert vm.wait() == 5

    def test_before_it(self, peer: MakePeer) -> None:
        vm = peer(start=[do.exit_with(3)])
        assert vm.lines.read() == b""
        assert vm.wait() == 3

    def test_after_it(self, peer: MakePeer) -> None:
        vm = peer(greeting=[do.as_qemu(), do.die_of(signal.SIGSEGV)])
        assert "QMP" in vm.read()
        assert vm.read() is None
        assert vm.wait() == -signal.SIGSEGV

    def test_a_late_one_is_not_for_the_next_client(self, peer: MakePeer, tmp_path: Path) -> None:
        path = str(tmp_path / "m")
        greeting = [do.hold(), do.as_qemu()]
        on = {"go": [do.release(), do.reply()], "late": [do.hold(), do.as_qemu(), do.hang_up()]}
        vm = peer("-qmp", f"unix:{path},server=on,wait=off", greeting=greeting, on=on)
        vm.tell("qmp_capabilities")
        assert vm.read() == {"return": {}}
        for end in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(path)
                client.sendall(b'{"execute": "qmp_capabilities"}{"execute": "late", "id": %d}' % end)
                assert b"return" in client.recv(1000)
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as lines:
            client.settimeout(LIMIT)
            client.connect(path)
            client.sendall(b'{"execute": "qmp_capabilities", "id": 3}')
            assert json.loads(lines.readline()) == {"return": {}, "id": 3}
            vm.tell("go")
            assert "QMP" in vm.read()
            assert vm.read() == {"return": {}}
            assert b"QMP" in lines.readline()
            client.sendall(b'{"execute": "query-status", "id": 4}')
            assert json.loads(lines.readline())["id"] == 4, "no reply to others, one greeting, no end"

    @pytest.mark.parametrize("actions", [[], [do.refuse()]], ids=["silence", "no"])
    def test_a_negotiation_that_fails_is_not_over(self, peer: MakePeer, actions: list[Action]) -> None:
        on = {"qmp_capabilities": [*actions, do.wait(0.02), do.emit("X"), do.output("end")]}
        vm = peer(on=on, ready=[do.exit_with(3)])
        vm.tell("qmp_capabilities")
        assert vm.process.stderr is not None
        assert vm.process.stderr.read(3) == b"end"
        vm.tell("stop", 1)
        while (message := vm.read()).get("id") != 1:
            assert "event" not in message
        assert error(message)[0] == "CommandNotFound"

    @pytest.mark.parametrize("reply", [do.as_qemu(), do.reply(), do.send('{"return": {}}\r\n')], ids=repr)
    def test_the_negotiation_is_over_with_its_reply(self, peer: MakePeer, reply: Action) -> None:
        vm = peer(on={"qmp_capabilities": [reply, do.hold()]}).negotiate()
        assert vm.ask("query-status")["return"]["running"]

    def test_ready_is_after_the_negotiation(self, peer: MakePeer) -> None:
        vm = peer(ready=[do.emit("READY"), do.wait(0.05), do.exit_with(4)]).negotiate()
        assert event(vm.read()) == ("READY", None)
        assert vm.wait() == 4

    def test_nothing_is_heard_before_start_is_over(self, peer: MakePeer) -> None:
        vm = peer(start=[do.say("x" * 2 * MIB), do.output("here")])
        assert select.select([vm.monitor], [], [], 0.1)[0] == [], "the console is not read"
        heard = 0
        while heard < 2 * MIB:
            heard += len(vm.console.recv(65536))
        vm.negotiate()


class TestReplies:
    def test_out_of_order(self, peer: MakePeer) -> None:
        on = {"a": [do.hold(), do.reply("a")], "b": [do.reply("b"), do.release()]}
        vm = peer(on=on).negotiate()
        vm.tell("a", 1)
        vm.tell("b", 2)
        assert [vm.read(), vm.read()] == [{"return": "b", "id": 2}, {"return": "a", "id": 1}]
        vm.tell("a", 3)
        vm.tell("b", 4)
        assert [vm.read()["id"], vm.read()["id"]] == [4, 3]

    def test_what_was_held_comes_before_what_is_next(self, peer: MakePeer) -> None:
        on = {"a": [do.hold(), do.reply()], "b": [do.release(), do.reply()]}
        vm = peer(on=on).negotiate()
        for number, command in enumerate("aab"):
            vm.tell(command, number)
        assert [vm.read()["id"] for _ in range(3)] == [0, 1, 2]

    def test_late_is_late_for_that_command_only(self, peer: MakePeer) -> None:
        vm = peer(on={"stop": [do.wait(0.2), do.as_qemu()]}).negotiate()
        began = time.monotonic()
        vm.tell("stop", 1)
        assert vm.ask("query-version", 2)["id"] == 2
        assert event(vm.read())[0] == "STOP"
        assert time.monotonic() - began >= 0.2
        assert vm.read()["id"] == 1

    def test_wrong_ones(self, peer: MakePeer) -> None:
        on = {
            "stop": [do.reply(id="other"), do.reply(id=None)],
            "cont": [do.refuse("not now", error_class="DeviceNotActive")],
            "query-name": [do.send('{"id": $id, "n": $number}\r\n', times=2)],
        }
        vm = peer(on=on).negotiate()
        assert vm.ask("stop", 1) == {"return": {}, "id": "other"}
        assert vm.read() == {"return": {}, "id": None}
        assert error(vm.ask("cont", 2)) == ("DeviceNotActive", "not now", 2)
        assert vm.ask("query-name", "x") == {"id": "x", "n": 1}
        assert vm.read() == {"id": "x", "n": 2}

    def test_the_end_of_the_file_in_the_middle(self, peer: MakePeer) -> None:
        vm = peer(on={"stop": [do.send('{"return": '), do.hang_up()]}).negotiate()
        vm.tell("stop")
        assert vm.lines.read() == b'{"return": '
        assert vm.process.poll() is None

    def test_larger_than_anybody_reads(self, peer: MakePeer) -> None:
        vm = peer(on={"stop": [do.reply("x" * 11 * MIB)]}).negotiate()
        assert len(vm.ask("stop")["return"]) == 11 * MIB

    def test_commands_are_listed(self, peer: MakePeer) -> None:
        vm = peer(on={"of-mine": [do.reply()], 'a "b"': []}).negotiate()
        names = {command["name"] for command in vm.ask("query-commands")["return"]}
        assert {"of-mine", 'a "b"', "qmp_capabilities", "quit", "stop"} <= names

    def test_what_came_before_hanging_up_is_not_heard_after_it(self, peer: MakePeer) -> None:
        vm = peer(on={"a": [do.hang_up()]}, sigterm=[do.exit_with(6)]).negotiate()
        vm.monitor.sendall(b'{"execute": "a"}{"execute": "quit"}')
        assert vm.read() is None
        vm.process.terminate()
        assert vm.wait() == 6

    def test_hanging_up(self, peer: MakePeer, tmp_path: Path) -> None:
        path = str(tmp_path / "m")
        args = ("-chardev", f"socket,id=l,path={path},server=on,wait=off", "-mon", "chardev=l,mode=control")
        on = {"here": [do.hang_up()], "all": [do.hang_up(everywhere=True, for_good=True)]}
        vm = peer(*args, on=on).negotiate()

        def tell(command: str) -> bytes:
            with socket.socket(socket.AF_UNIX) as end:
                end.settimeout(LIMIT)
                end.connect(path)
                end.sendall(b'{"execute": "qmp_capabilities"}{"execute": "%s"}' % command.encode())
                with end.makefile("rb") as lines:
                    return lines.read()

        for command in ("here", "here", "all"):
            assert tell(command).count(b"\n") == 2
        assert vm.read() is None
        with pytest.raises(ConnectionRefusedError):
            tell("here")
        assert vm.process.poll() is None

    def test_hanging_up_on_who_is_about_to_be_heard(self, peer: MakePeer, tmp_path: Path) -> None:
        path = str(tmp_path / "m")
        args = ("-chardev", f"socket,id=l,path={path},server=on,wait=off", "-mon", "chardev=l,mode=control")
        everywhere = do.hang_up(everywhere=True, for_good=True)
        on = {"wedge": [do.emit("HEARD"), do.wedge(0.3)], "all": [everywhere, do.wait(0.05), do.exit_with(8)]}
        vm = peer(*args, on=on).negotiate()
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)
            assert other.recv(1) == b"{"
            assert event(vm.ask("wedge"))[0] == "HEARD"
            vm.tell("all")
            other.sendall(b'{"execute": "qmp_capabilities"}')
            assert vm.wait() == 8


class TestEvents:
    def test_a_storm_at_once(self, peer: MakePeer) -> None:
        storm = [do.emit("STEP", {"n": "$number", "m": "$numbers"}, times=20_000), do.reply()]
        vm = peer(on={"storm": storm}).negotiate()
        vm.tell("storm")
        for n in range(1, 20_001):
            assert event(vm.read()) == ("STEP", {"n": n, "m": "$numbers"})
        assert vm.read() == {"return": {}}

    def test_so_many_a_second(self, peer: MakePeer) -> None:
        vm = peer(ready=[do.emit("TICK", times=None, per_second=200)]).negotiate()
        began = time.monotonic()
        for _ in range(60):
            assert event(vm.read())[0] == "TICK"
        assert time.monotonic() - began >= 0.28
        vm.tell("stop", 1)
        while vm.read().get("id") != 1:  # it listens
            pass

    def test_without_end(self, peer: MakePeer) -> None:
        vm = peer(on={"storm": [do.emit("STEP", times=None)]}).negotiate()
        vm.tell("storm")
        for _ in range(10_000):
            assert event(vm.read())[0] == "STEP"
        vm.tell("quit", 1)
        vm.lines.read()
        assert vm.wait() == 0

    def test_of_any_text(self, peer: MakePeer) -> None:
        vm = peer(ready=[do.emit('A "B"'), do.shut_down('guest-"x"')]).negotiate()
        assert event(vm.read()) == ('A "B"', None)
        assert event(vm.read()) == ("SHUTDOWN", {"guest": True, "reason": 'guest-"x"'})

    def test_of_nothing(self, peer: MakePeer) -> None:
        """It holds up nobody."""
        vm = peer(ready=[do.send("", times=None)]).negotiate()
        assert vm.ask("query-status")["return"]["running"]


class TestConsole:
    def test_what_is_said_and_answered(self, peer: MakePeer) -> None:
        lines = {"ping": [do.say("pong\n")], "bye": [do.say("$number\n", times=2), do.close_console()]}
        vm = peer(lines=lines, ready=[do.say(b"\xff\xfe login: ")]).negotiate()
        with vm.console.makefile("rb") as console:
            assert console.read(9) == b"\xff\xfe login: "[:9]
            vm.console.sendall(b"nothing\n ping\r\n")
            assert console.readline().endswith(b" pong\n")
            vm.console.sendall(b"by")
            vm.console.sendall(b"e\r")
            assert console.read() == b"1\n2\n"
        assert vm.ask("query-status")["return"]["running"]

    def test_a_flood_holds_up_nothing(self, peer: MakePeer) -> None:
        vm = peer(start=[do.output("up")], ready=[do.say("y" * 1000 + "\n", times=None)]).negotiate()
        assert vm.ask("query-status")["return"]["running"], "though nobody reads"
        heard = 0
        while heard < 20 * MIB:
            heard += len(vm.console.recv(MIB))
        assert vm.ask("query-status")["return"]["running"]

    def test_never_read(self, peer: MakePeer) -> None:
        vm = peer(reads_console=False).negotiate()
        vm.console.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while vm.console.send(b"x" * 65536):
                pass
        assert vm.ask("query-status")["return"]["running"]
        assert select.select([], [vm.console], [], 0.1)[1] == []

    def test_read_by_default(self, peer: MakePeer) -> None:
        vm = peer().negotiate()
        vm.console.sendall(b"x" * 5 * MIB)

    def test_undecodable_output(self, peer: MakePeer) -> None:
        vm = peer(start=[do.output(b"\xff\x00"), do.output("ä", stdout=True), do.exit_with(1)])
        assert vm.output() == ("ä".encode(), b"\xff\x00")

    def test_one_that_is_not_there(self, peer: MakePeer) -> None:
        vm = peer(ready=[do.say("x", console=7), do.close_console(7), do.emit("DONE")]).negotiate()
        assert event(vm.read())[0] == "DONE"

    @pytest.mark.parametrize("device", ["isa-serial,chardev=d", "driver=virtconsole,chardev=d"])
    def test_of_a_device(self, peer: MakePeer, device: str) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(LIMIT)
            number = os.dup(theirs.fileno())
            try:
                with FakeQEMU(ready=[do.say("hello", console=0)]) as fake:
                    args = ["-chardev", f"socket,id=d,fd={number}", "-device", device]
                    with subprocess.Popen([fake.binary, *args], pass_fds=[number]) as process:
                        assert ours.recv(5) == b"hello"
                        process.terminate()
            finally:
                os.close(number)


class TestEnds:
    @pytest.mark.parametrize("status", [0, 1, 255])
    def test_with_any_status(self, peer: MakePeer, status: int) -> None:
        vm = peer(on={"quit": [do.as_qemu()], "die": [do.exit_with(status)]}).negotiate()
        vm.tell("die")
        assert vm.wait() == status

    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
    def test_by_any_signal(self, peer: MakePeer, number: signal.Signals) -> None:
        vm = peer(on={"quit": [do.die_of(number)]}).negotiate()
        vm.tell("quit")
        assert vm.wait() == -number

    def test_deaf_to_quit_and_sigterm(self, peer: MakePeer) -> None:
        vm = peer(on={"quit": [do.reply()]}, sigterm=[do.emit("HEARD")]).negotiate()
        assert vm.ask("quit", 1) == {"return": {}, "id": 1}
        vm.process.terminate()
        assert event(vm.read())[0] == "HEARD"
        assert vm.ask("query-status")["return"]["running"]

    def test_by_the_guest(self, peer: MakePeer) -> None:
        vm = peer(on={"system_powerdown": [do.as_qemu(), do.shut_down(status=1)]}).negotiate()
        assert [event(vm.ask("system_powerdown"))[0], vm.read()] == ["POWERDOWN", {"return": {}}]
        assert event(vm.read()) == ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
        assert vm.wait() == 1

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
    def test_by_a_signal_that_was_blocked(self, number: signal.Signals) -> None:
        with FakeQEMU(start=[do.die_of(number)]) as fake:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})  # a child inherits it
            try:
                process = subprocess.Popen([fake.binary])
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            assert process.wait(LIMIT) == -number

    def test_nobody_reads_the_output_any_more(self, peer: MakePeer) -> None:
        vm = peer(on={"a": [do.output("x"), do.output("y", stdout=True), do.reply()]}).negotiate()
        for end in (vm.process.stdout, vm.process.stderr):
            assert end is not None
            end.close()
        vm.process.stdout = vm.process.stderr = None
        assert vm.ask("a") == {"return": {}}
        vm.process.terminate()
        assert event(vm.read())[0] == "SHUTDOWN"
        assert vm.wait() == 0

    def test_output_that_would_block(self) -> None:
        """Whoever started it has made stderr non-blocking."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        with FakeQEMU(start=[do.output(b"x" * MIB), do.exit_with(0)]) as fake, os.fdopen(read, "rb") as end:
            with subprocess.Popen([fake.binary], stderr=write) as process:
                os.close(write)
                assert end.read() == b"x" * MIB
            assert process.returncode == 0

    def test_wedged(self, peer: MakePeer) -> None:
        vm = peer(on={"stop": [do.wedge()]}).negotiate()
        vm.tell("stop")
        vm.tell("query-status")
        pid = vm.process.pid
        until(lambda: "SigBlk:\t0000000000004003" in Path(f"/proc/{pid}/status").read_text())
        vm.process.terminate()
        assert select.select([vm.monitor], [], [], 0.1)[0] == []
        assert vm.process.poll() is None

    def test_wedged_for_a_while(self, peer: MakePeer) -> None:
        vm = peer(on={"stop": [do.wedge(0.2)]}).negotiate()
        began = time.monotonic()
        vm.tell("stop", 1)
        assert vm.ask("query-status", 2)["id"] == 2
        assert time.monotonic() - began >= 0.2


class TestForks:
    @pytest.mark.parametrize("leaving", [None, "group", "session"])
    def test_the_child_keeps_what_there_is(self, leaving: str | None) -> None:
        with FakeQEMU(ready=[do.fork(leaving=leaving), do.emit("FORKED")]) as fake:
            vm = Peer(fake.binary)
            with contextlib.closing(vm):
                vm.negotiate()
                assert event(vm.read())[0] == "FORKED"
                (child,) = fake.pids - {vm.process.pid}
                assert os.getsid(child) == (child if leaving == "session" else os.getsid(0))
                assert os.getpgid(child) == (os.getpgid(0) if leaving is None else child)
                vm.tell("quit")
                vm.process.wait(LIMIT)
                for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM):
                    os.kill(child, number)
                assert (vm.read()["event"], vm.read()) == ("SHUTDOWN", {"return": {}})
                assert select.select([vm.monitor], [], [], 0.1)[0] == [], "the child has it open"
                assert fake.pids == {child}
                os.kill(child, signal.SIGKILL)
                assert vm.read() is None
        assert not is_alive(child)

    def test_the_end_of_the_block_kills_all(self) -> None:
        with FakeQEMU(start=[do.fork(), do.fork(leaving="session"), do.output("up")]) as fake:
            process = subprocess.Popen([fake.binary], stderr=subprocess.PIPE)
            assert process.stderr is not None
            assert process.stderr.read(2) == b"up"
            pids = fake.pids
            assert len(pids) == 3
            directory = os.path.dirname(fake.binary)
        assert process.wait(LIMIT) == -signal.SIGKILL
        process.stderr.close()
        assert not any(map(is_alive, pids))
        assert not os.path.exists(directory)

    def test_the_end_of_its_maker_is_the_end_of_all(self) -> None:
        """A while after; without it a child that left the session would stay for ever."""
        script = (
            "import os, subprocess, sys\n"
            "from vmfsm.testing import FakeQEMU, actions as do, fake_qemu\n"
            "fake_qemu._OUTLIVES = 0.5\n"
            "up = do.output('up')\n"
            "for start in [do.fork(leaving='session'), up], [up, do.wedge()]:\n"
            "    fake = FakeQEMU(start=start).__enter__()\n"
            "    started = subprocess.Popen([fake.binary], stderr=subprocess.PIPE)\n"
            "    assert started.stderr.read(2) == b'up'\n"
            "    print(os.path.dirname(fake.binary), *fake.pids, flush=True)\n"
            "sys.stdin.read()\n"
        )
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as maker:
            assert maker.stdout is not None
            (first, *pids), (second, *more) = (maker.stdout.readline().split() for _ in range(2))
            assert (len(pids), len(more)) == (2, 1)
            time.sleep(1)  # longer than it would live without its maker
            assert all(is_alive(int(pid)) for pid in (*pids, *more))
            maker.kill()
        until(lambda: not any(is_alive(int(pid)) for pid in (*pids, *more)))
        assert not os.path.exists(first)
        assert not os.path.exists(second)


# -- what is given ------------------------------------------------------------------------------------------

WRONG: list[tuple[str, Callable[[], object]]] = [
    ("seconds", lambda: do.wait(-1)),
    ("seconds", lambda: do.wait("1")),  # type: ignore[arg-type]
    ("seconds", lambda: do.wait(float("nan"))),
    ("seconds", lambda: do.wedge(float("inf"))),
    ("seconds", lambda: do.wedge(True)),
    ("value", lambda: do.reply(object())),
    ("id", lambda: do.reply(id=object())),
    ("description", lambda: do.refuse(5)),  # type: ignore[arg-type]
    ("error_class", lambda: do.refuse(error_class=None)),  # type: ignore[arg-type]
    ("data", lambda: do.send(5)),  # type: ignore[arg-type]
    ("times", lambda: do.send("x", times=-1)),
    ("times", lambda: do.say("x", times=1.5)),  # type: ignore[arg-type]
    ("event", lambda: do.emit(b"X")),  # type: ignore[arg-type]
    ("value", lambda: do.reply(float("nan"))),
    ("data", lambda: do.say("\udcff")),
    ("data", lambda: do.emit("X", {"a": {1}})),
    ("data", lambda: do.emit("X", [1])),  # type: ignore[arg-type]
    ("per_second", lambda: do.emit("X", per_second=0)),
    ("per_second", lambda: do.emit("X", per_second=1e-300)),
    ("per_second", lambda: do.emit("X", per_second=float("inf"))),
    ("for_good", lambda: do.hang_up(for_good=1)),  # type: ignore[arg-type]
    ("everywhere", lambda: do.hang_up(everywhere="yes")),  # type: ignore[arg-type]
    ("console", lambda: do.say("x", console=-1)),
    ("console", lambda: do.close_console("ttyS0")),  # type: ignore[arg-type]
    ("stdout", lambda: do.output("x", stdout=2)),  # type: ignore[arg-type]
    ("leaving", lambda: do.fork(leaving="home")),
    ("leaving", lambda: do.fork(leaving=["group"])),  # type: ignore[arg-type]
    ("reason", lambda: do.shut_down(None)),  # type: ignore[arg-type]
    ("status", lambda: do.shut_down(status=-1)),
    ("status", lambda: do.exit_with(256)),
    ("number", lambda: do.die_of(0)),
    ("number", lambda: do.die_of("SIGTERM")),  # type: ignore[arg-type]
    ("number", lambda: do.die_of([9])),  # type: ignore[arg-type]
    ("number", lambda: do.die_of(signal.SIGCHLD)),
    ("number", lambda: do.die_of(signal.SIGSTOP)),
    ("start", lambda: FakeQEMU(start=5)),  # type: ignore[arg-type]
    ("start", lambda: FakeQEMU(start=do.wait(1))),  # type: ignore[arg-type]
    ("start", lambda: FakeQEMU(start="late")),  # type: ignore[arg-type]
    ("greeting", lambda: FakeQEMU(greeting=[None])),  # type: ignore[list-item]
    ("ready", lambda: FakeQEMU(ready=[do.reply()])),
    ("sigterm", lambda: FakeQEMU(sigterm=[do.refuse()])),
    ("on", lambda: FakeQEMU(on=[do.wait(1)])),  # type: ignore[arg-type]
    ("on", lambda: FakeQEMU(on=())),  # type: ignore[arg-type]
    ("on", lambda: FakeQEMU(on={5: []})),  # type: ignore[dict-item]
    ("on['quit']", lambda: FakeQEMU(on={"quit": None})),  # type: ignore[dict-item]
    ("lines['x']", lambda: FakeQEMU(lines={"x": [do.reply()]})),
    ("lines", lambda: FakeQEMU(lines={"root\n": []})),
    ("lines", lambda: FakeQEMU(lines={"a\rb": []})),
    ("reads_console", lambda: FakeQEMU(reads_console=0)),  # type: ignore[arg-type]
    ("version", lambda: FakeQEMU(version=(9, 2))),  # type: ignore[arg-type]
    ("version", lambda: FakeQEMU(version="9.2.0")),  # type: ignore[arg-type]
    ("version", lambda: FakeQEMU(version=(9, 2, -1))),
]


@pytest.mark.parametrize(("field", "call"), WRONG, ids=[f"{n}-{field}" for n, (field, _) in enumerate(WRONG)])
def test_what_is_wrong_is_said_at_once(field: str, call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.field == field
    assert field.split("[", maxsplit=1)[0] in str(caught.value)
    assert len(str(caught.value)) < 300


def test_only_inside_of_its_block() -> None:
    fake = FakeQEMU()
    with pytest.raises(TransitionError, match="with"):
        _ = fake.binary
    with pytest.raises(TransitionError, match="with"):
        _ = fake.pids
    for _ in range(2):  # it may be used again
        with fake:
            assert os.access(fake.binary, os.X_OK)
            assert fake.pids == frozenset()
            with pytest.raises(TransitionError, match="in use"), fake:
                pass
            assert os.access(fake.binary, os.X_OK)
        with pytest.raises(TransitionError):
            _ = fake.binary


def test_it_needs_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with FakeQEMU(start=[do.exit_with(3)]) as fake:
        assert subprocess.run([fake.binary], env={}, check=False).returncode == 3


def test_nothing_is_left_where_it_cannot_be_made() -> None:
    fake = FakeQEMU()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), fake:
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with fake:
        assert os.access(fake.binary, os.X_OK)


def test_actions_show_what_they_are() -> None:
    assert repr(do.wait(2)) == "wait(2.0)"
    assert len(repr(do.send("x" * MIB))) < 100


def test_the_process_performs_every_action() -> None:
    source = Path(actions.__file__).with_name("fake_qemu_process") / "orders.py"
    performed = set(re.findall(r'^    "(\w+)": _', source.read_text(), re.MULTILINE))
    made = {do.as_qemu(), do.reply(), do.refuse(), do.hold(), do.release(), do.hang_up(), do.fork()}
    made |= {do.wait(1), do.send(""), do.emit("X"), do.say(""), do.close_console(), do.output("")}
    made |= {do.wedge(), do.shut_down(), do.exit_with(), do.die_of(9)}
    functions = {name for name in actions.__all__ if name != "Action"}
    assert len(made) == len(functions)
    assert all(isinstance(action, Action) for action in made)
    assert {action.name for action in made} == performed


def test_several_at_once_and_threads_beside(tmp_path: Path) -> None:
    """One fake serves any number of processes; it is made beside threads that start others."""
    stop = threading.Event()

    def spawn() -> None:
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    thread = threading.Thread(target=spawn)
    thread.start()
    try:
        for _ in range(8):
            with FakeQEMU(start=[do.exit_with(6)]) as fake:
                started = [subprocess.Popen([fake.binary]) for _ in range(2)]
                assert [process.wait(LIMIT) for process in started] == [6, 6]
    finally:
        stop.set()
        thread.join()


def test_the_installed_package_has_all_of_it(tmp_path: Path) -> None:
    """A copy of the package, as a wheel has it, without write permission and in a path with spaces."""
    site = tmp_path / "a site, with spaces"
    source = Path(actions.__file__).parent.parent
    shutil.copytree(source, site / "vmfsm", ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import subprocess\nfrom vmfsm.testing import FakeQEMU, actions as do\n"
        "with FakeQEMU(start=[do.exit_with(9)]) as fake:\n"
        "    print(subprocess.run([fake.binary]).returncode)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(site), "TMPDIR": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.check_output([sys.executable, "-c", script], env=env, cwd=site)
    assert said == b"9\n"
