"""Guests that move between machines: the tiny guest, with nothing but itself to lose."""

import asyncio
import contextlib
import os
import pickle
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vmfsm_plugins.migration import MigrationError
from vmfsm_plugins.qmp import QMPCommandError, QMPConnectionError

from tests.waiting import SLACK, InThread, until
from vmfsm import ConfigError, Machine, MachineDied, MachineTimeout, Reason, State, TransitionError, VMError
from vmfsm.testing import GUEST_ARGS

Make = Callable[..., Machine]
INCOMING = ("-incoming", "defer")
SURVIVES_FAILURE = (9, 1, 0)
CANCELLED = {"cancelled", "failed"}


@pytest.fixture
def make(qemu: str) -> Iterator[Make]:
    """Makes launched machines with the tiny guest; kills them at the end."""
    machines = []

    def make(name: str, *args: str, **parameters: object) -> Machine:
        vm = Machine(qemu, [*GUEST_ARGS, *args], name=name, **parameters)  # type: ignore[arg-type]
        machines.append(vm)
        return vm.launch()

    yield make
    for vm in machines:
        with contextlib.suppress(VMError):
            vm.kill()


@pytest.fixture
def source(make: Make) -> Machine:
    return ready(make("source"))


@pytest.fixture
def destination(make: Make) -> Machine:
    return make("destination", *INCOMING, expected_exits=(0, 1))


def ready(vm: Machine) -> Machine:
    vm.console.expect("ready")
    return vm


def assert_lives(vm: Machine) -> None:
    assert (vm.state, vm.run_state) == (State.RUNNING, "running")
    assert vm.qmp.execute("query-status")["status"] == "running"
    vm.console.sendline("ping")
    vm.console.expect("pong", timeout=20)


def assert_moved(source: Machine, destination: Machine) -> None:
    assert (source.state, source.run_state) == (State.RUNNING, "postmigrate")
    assert source.qmp.execute("query-status")["status"] == "postmigrate"
    assert_lives(destination)


def hold(vm: Machine) -> None:
    """Let its migration stand still when all but the last is done, until `migrate-continue` or a cancel."""
    capability = {"capability": "pause-before-switchover", "state": True}
    vm.qmp.execute("migrate-set-capabilities", capabilities=[capability])


def held(source: Machine, destination: Machine) -> None:
    """Begin a migration that stands still."""
    hold(source)
    source.migration.start(destination)
    until_held(source)


def until_held(source: Machine) -> None:
    until(lambda: source.migration.progress().status == "pre-switchover")


def descriptors(vm: Machine) -> int:
    return len(os.listdir(f"/proc/{vm.pid}/fd"))


def ended_by_itself(vm: Machine) -> bool:
    """Whether this destination, whose migration failed, is of a version that ends then."""
    return vm.state is not State.RUNNING or vm.qmp.version < SURVIVES_FAILURE


def assert_destination_failed(vm: Machine) -> None:
    if ended_by_itself(vm):
        vm.wait(timeout=20)
        assert (vm.state, vm.reason, vm.exit_status) == (State.STOPPED, Reason.QEMU_EXIT, 1)
    else:
        assert (vm.state, vm.run_state) == (State.RUNNING, "inmigrate")
        until(lambda: vm.migration.progress().status == "failed")


# -- to another machine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [None, "socket"])
def test_the_guest_moves(source: Machine, destination: Machine, over: str | None, tmp_path: Path) -> None:
    before = descriptors(source)
    path = None if over is None else tmp_path / over
    progress = source.migration.to(destination, over=path)
    assert_moved(source, destination)
    assert progress.status == "completed"
    assert progress.error == ""
    assert progress.total >= 16 * 1024 * 1024
    assert 0 < progress.transferred < progress.total
    assert 0 < progress.downtime <= progress.seconds < 30
    assert list(tmp_path.iterdir()) == []
    until(lambda: descriptors(source) <= before)
    assert progress == source.migration.progress() == source.migration.wait() == destination.migration.wait()
    for vm in (destination, source):
        vm.shutdown()
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


def test_a_relative_path_is_ours(
    source: Machine, destination: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # QEMU is elsewhere
    source.migration.to(destination, over="socket")
    assert_moved(source, destination)
    other = tmp_path / "other"
    destination.migration.to_file("other")
    assert list(tmp_path.iterdir()) == [other]


def test_what_the_guest_does_goes_on(source: Machine, destination: Machine) -> None:
    source.console.sendline("flood")
    source.console.expect(r"flood [0-9a-f]{8}\r?\n" * 3)
    source.migration.to(destination)
    destination.console.expect(r"flood [0-9a-f]{8}\r?\n" * 3)
    last = re.findall(r"flood ([0-9a-f]{8})\r?\n", source.console.text)[-1]
    first = re.findall(r"flood ([0-9a-f]{8})\r?\n", destination.console.text)[0]
    assert 0 < int(first, 16) - int(last, 16) <= 2  # a line may begin here and end there


@pytest.mark.parametrize("args", [(), ("-S",)])
def test_a_paused_guest_stays_paused(make: Make, source: Machine, args: tuple[str, ...]) -> None:
    destination = make("destination", *INCOMING, *args)
    if not args:
        source.qmp.execute("stop")
    source.migration.to(destination)
    assert (source.run_state, destination.run_state) == ("postmigrate", "paused")
    destination.qmp.execute("cont")
    assert_lives(destination)


def test_on_and_on(make: Make, source: Machine) -> None:
    machines = [source]
    for name in "bcd":
        machines.append(make(name, *INCOMING))
        machines[-2].migration.to(machines[-1])
    assert_moved(*machines[-2:])
    assert [vm.run_state for vm in machines] == ["postmigrate"] * 3 + ["running"]


def test_it_works_again_after_a_relaunch(source: Machine, destination: Machine) -> None:
    for _ in range(2):
        source.migration.to(destination)
        assert_moved(source, destination)
        for vm in (source, destination):
            vm.shutdown()
            vm.launch()
            with pytest.raises(TransitionError, match="no migration was started"):
                vm.migration.wait()
            assert vm.migration.cancel().status == "none"
        ready(source)


def test_the_users_events_are_the_users(source: Machine, destination: Machine) -> None:
    source.migration.to(destination)
    match = {"data": {"status": "completed"}}
    for vm in (source, destination):
        assert vm.qmp.wait_event("MIGRATION", match=match, timeout=30)["event"] == "MIGRATION"


def test_it_is_recorded(source: Machine, destination: Machine) -> None:
    progress = source.migration.to(destination)
    for vm, role, peer in ((source, "source", "destination"), (destination, "destination", "source")):
        records = [record.data for record in vm.timeline if record.kind == "migration"]
        assert {(data["role"], data["peer"], data["error"]) for data in records} == {(role, peer, None)}
        statuses = [data["status"] for data in records]
        assert statuses[0] == "setup"
        assert statuses[-1] == "completed"
        assert statuses.count("completed") == 1
        assert records[-1]["transferred"] == (progress.transferred if vm is source else 0)


def test_coroutines(source: Machine, destination: Machine) -> None:
    async def move() -> None:
        await source.migration.aio.start(destination)
        progress = await destination.migration.aio.wait()
        assert progress == await source.migration.aio.progress()

    asyncio.run(move())
    assert_moved(source, destination)


# -- what is refused ----------------------------------------------------------------------------------------


def test_no_destination(make: Make, source: Machine, qemu: str) -> None:
    with pytest.raises(ConfigError, match="itself") as itself:
        source.migration.to(source)
    assert itself.value.field == "other"
    with pytest.raises(ConfigError, match="must be a Machine") as nothing:
        source.migration.to("destination")  # type: ignore[arg-type]
    assert nothing.value.field == "other"
    with pytest.raises(TransitionError, match=r"^unborn: .*not launched \(with -incoming defer\)"):
        source.migration.to(Machine(qemu, name="unborn"))
    with pytest.raises(TransitionError, match=r"^unborn: cannot migrate in state configured"):
        Machine(qemu, name="unborn").migration.to(source)
    with pytest.raises(ConfigError, match=r"^mute: it has no monitor"):
        source.migration.to(make("mute", *INCOMING, options={"qmp": {"enabled": False}}))
    ended = make("ended", *INCOMING)
    ended.shutdown()
    with pytest.raises(MachineDied) as died:
        source.migration.to(ended)
    assert died.value.machine == "ended"
    with pytest.raises(ConfigError, match="'migration'"):
        source.migration.to(make("without", *INCOMING, block=["migration"]))
    other = make("other")
    with pytest.raises(TransitionError, match=r"run state is '\w+', not 'inmigrate'.*-incoming defer") as up:
        source.migration.to(other)
    assert up.value.machine == "other"
    assert_lives(source)


def test_no_source(make: Make, source: Machine, destination: Machine) -> None:
    with pytest.raises(TransitionError, match=r"no guest to migrate.*inmigrate"):
        destination.migration.to(make("third", *INCOMING))
    source.migration.to(destination)
    with pytest.raises(TransitionError, match=r"no guest to migrate.*postmigrate"):
        source.migration.to(make("fourth", *INCOMING))
    assert_moved(source, destination)


def test_a_destination_that_waits_elsewhere(make: Make, source: Machine, tmp_path: Path) -> None:
    other = make("other", "-incoming", f"unix:{tmp_path}/elsewhere")
    before = descriptors(source), descriptors(other)
    with pytest.raises(QMPCommandError) as error:
        source.migration.to(other)
    assert (error.value.machine, error.value.command) == ("other", "migrate-incoming")
    assert_lives(source)
    until(lambda: (descriptors(source), descriptors(other)) == before)


def test_what_cannot_migrate(make: Make, destination: Machine) -> None:
    source = ready(make("source", "-device", "ivshmem-plain,memdev=mem,master=off",
                        "-object", "memory-backend-ram,size=1M,id=mem,share=on"))  # fmt: skip
    for over in (None, "socket"):
        with pytest.raises(
            MigrationError, match=r"migration of source to destination failed; .*ivshmem"
        ) as error:
            source.migration.to(destination, over=over)
        assert error.value.source == "none"
        assert error.value.source_runs
    assert destination.run_state == "inmigrate"
    assert_lives(source)


@pytest.mark.parametrize("over", ["", "a\0b", 5, b"bytes", "/x" * 54])
def test_a_path_that_is_none(source: Machine, destination: Machine, over: object) -> None:
    with pytest.raises(ConfigError) as error:
        source.migration.to(destination, over=over)  # type: ignore[arg-type]
    assert error.value.field == "over"


def test_a_file_in_the_way(source: Machine, destination: Machine, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(FileExistsError):
        source.migration.to(destination, over=file)
    with pytest.raises(FileNotFoundError):
        source.migration.to(destination, over=tmp_path / "no" / "where")
    assert file.read_text() == "mine"
    source.migration.to(destination, over=tmp_path / "free")
    assert_moved(source, destination)


@pytest.mark.parametrize("which", ["source", "destination"])
def test_over_tcp_a_path_is_needed(make: Make, which: str, tmp_path: Path) -> None:
    tcp = {"options": {"qmp": {"address": ("127.0.0.1", 0)}}}
    source = ready(make("source", **(tcp if which == "source" else {})))
    destination = make("destination", *INCOMING, **(tcp if which == "destination" else {}))
    with pytest.raises(ConfigError, match=f"^{which}: .*TCP.*over=PATH") as error:
        source.migration.to(destination)
    assert error.value.field == "options['qmp']['address']"
    source.migration.to(destination, over=tmp_path / "socket")
    assert_moved(source, destination)


def test_one_at_a_time(make: Make, source: Machine, destination: Machine) -> None:
    held(source, destination)
    third, fourth = make("third", *INCOMING), ready(make("fourth"))
    for one, other in ((source, third), (fourth, destination)):
        with pytest.raises(TransitionError, match="the migration of source to destination is under way"):
            one.migration.to(other)
    with pytest.raises(TransitionError, match="on its source"):
        destination.migration.cancel()
    source.qmp.execute("migrate-continue", state="pre-switchover")
    source.migration.wait()
    assert_moved(source, destination)
    assert_lives(fourth)
    fourth.migration.to(third)
    assert_moved(fourth, third)


def test_nothing_was_started(source: Machine) -> None:
    with pytest.raises(TransitionError, match="no migration was started"):
        source.migration.wait()
    assert source.migration.progress().status == "none"
    assert source.migration.cancel().status == "none"


# -- endings ------------------------------------------------------------------------------------------------


def test_cancel(source: Machine, destination: Machine) -> None:
    before = descriptors(source)
    held(source, destination)
    assert source.run_state == "finish-migrate"
    waiting = InThread(source.migration.wait)
    with pytest.raises(MachineTimeout) as late:
        source.migration.wait(timeout=0.1)
    assert "source source: pre-switchover" in "".join(late.value.__notes__)
    assert source.migration.progress().remaining >= 0
    assert source.migration.cancel().status in CANCELLED
    assert_lives(source)
    with pytest.raises(MigrationError, match="migration of source to destination was cancelled") as error:
        waiting.result()
    assert (error.value.machine, error.value.source_runs) == ("source", True)
    assert error.value.source in CANCELLED
    assert error.value.destination == "failed"
    assert_destination_failed(destination)
    until(lambda: descriptors(source) <= before)
    assert source.migration.cancel().status in CANCELLED


def test_another_destination_after_a_cancel(make: Make, source: Machine, destination: Machine) -> None:
    held(source, destination)
    source.migration.cancel()
    capability = {"capability": "pause-before-switchover", "state": False}
    source.qmp.execute("migrate-set-capabilities", capabilities=[capability])
    second = make("second", *INCOMING)
    source.migration.to(second)
    assert_moved(source, second)


@pytest.mark.parametrize("over", [None, "socket"])
def test_the_deadline(source: Machine, destination: Machine, over: str | None, tmp_path: Path) -> None:
    hold(source)
    path = None if over is None else tmp_path / over
    with pytest.raises(MachineTimeout) as late:
        source.migration.to(destination, over=path, timeout=1)
    assert late.value.operation == "migrate"
    assert re.search(r"source source: (cancelled|failed) \(running\)", "".join(late.value.__notes__))
    assert_lives(source)
    assert_destination_failed(destination)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_wait(source: Machine, destination: Machine) -> None:
    hold(source)

    async def interrupt() -> None:
        moving = asyncio.ensure_future(source.migration.aio.to(destination))
        while (await source.migration.aio.progress()).status != "pre-switchover":
            pass
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving

    asyncio.run(interrupt())
    until(lambda: source.run_state == "running")
    assert_lives(source)
    assert_destination_failed(destination)


@pytest.mark.parametrize("when", ["before", "midway", "at the end"])
def test_a_destination_that_is_stopped(source: Machine, destination: Machine, when: str) -> None:
    if when == "before":
        os.kill(destination.pid or 0, signal.SIGSTOP)
        with pytest.raises(MachineTimeout):
            source.migration.to(destination, timeout=1)
    else:
        held(source, destination)
        os.kill(destination.pid or 0, signal.SIGSTOP)
        if when == "at the end":
            # In a thread, since it may not be answered: all of QEMU waits for the destination to read.
            last = InThread(source.qmp.execute_raw, "migrate-continue", state="pre-switchover")
        with pytest.raises(MachineTimeout):
            source.migration.wait(timeout=0.5)
        assert source.migration.cancel().status in CANCELLED
        if when == "at the end":
            last.join()
    until(lambda: source.run_state == "running")
    assert_lives(source)
    destination.kill()


def test_a_source_that_is_stopped(source: Machine, destination: Machine) -> None:
    held(source, destination)
    os.kill(source.pid or 0, signal.SIGSTOP)
    with pytest.raises(MachineTimeout):
        source.migration.cancel(timeout=0.5)
    os.kill(source.pid or 0, signal.SIGCONT)
    assert_lives_again(source)
    assert_destination_failed(destination)


def assert_lives_again(vm: Machine) -> None:
    until(lambda: vm.run_state == "running")
    assert_lives(vm)


@pytest.mark.parametrize("how", ["to", "wait"])
def test_the_destination_dies(make: Make, source: Machine, how: str) -> None:
    destination = make("destination", *INCOMING)
    before = descriptors(source)
    if how == "to":
        hold(source)
        moving = InThread(source.migration.to, destination)
        until_held(source)
    else:
        held(source, destination)
        moving = InThread(source.migration.wait)
    began = time.monotonic()
    os.kill(destination.pid or 0, signal.SIGKILL)
    with pytest.raises(MachineDied) as died:
        moving.result()
    assert time.monotonic() - began < SLACK
    assert (died.value.machine, died.value.exit_status) == ("destination", -signal.SIGKILL)
    assert (died.value.state, destination.state) == (State.FAILED, State.FAILED)
    assert_lives_again(source)
    until(lambda: descriptors(source) <= before)


def test_the_destination_dies_before_it_has_begun(source: Machine, destination: Machine) -> None:
    """Who is told of a death finds the machine in its final state."""
    os.kill(destination.pid or 0, signal.SIGSTOP)
    known = len(destination.timeline)
    starting = InThread(source.migration.start, destination)
    until(
        lambda: any(record.data.get("command") == "query-status" for record in destination.timeline[known:])
    )
    os.kill(destination.pid or 0, signal.SIGKILL)
    with pytest.raises(MachineDied) as died:
        starting.result()
    assert (died.value.machine, died.value.state) == ("destination", State.FAILED)
    assert_lives_again(source)


def test_the_source_dies(source: Machine, destination: Machine) -> None:
    hold(source)
    moving = InThread(source.migration.to, destination)
    until_held(source)
    os.kill(source.pid or 0, signal.SIGKILL)
    with pytest.raises(MachineDied) as died:
        moving.result()
    assert (died.value.machine, source.state) == ("source", State.FAILED)
    assert_destination_failed(destination)


def lose_monitor(vm: Machine) -> None:
    vm.run(vm.qmp.client.disconnect(), timeout=5, operation="disconnect")


def until_lost(source: Machine) -> None:
    until(lambda: "monitor lost" in repr(source.migration))


@pytest.mark.parametrize("which", ["source", "destination"])
def test_a_lost_monitor_is_no_end(source: Machine, destination: Machine, which: str) -> None:
    vm = source if which == "source" else destination
    held(source, destination)
    lose_monitor(vm)
    until_lost(source)
    with pytest.raises(MachineTimeout) as late:
        source.migration.wait(timeout=0.1)
    assert re.search(rf"{which} {which}: \S+ \([\w-]+, monitor lost\)", "".join(late.value.__notes__))
    with pytest.raises(QMPConnectionError):
        vm.migration.progress()
    waiting = InThread(lambda: destination.migration.wait(timeout=20))
    vm.qmp.reconnect()
    until(lambda: "monitor lost" not in repr(source.migration))
    source.qmp.execute("migrate-continue", state="pre-switchover")
    assert waiting.result().status == "completed"
    assert_moved(source, destination)
    assert "monitor lost" not in repr(source.migration)


def test_a_cancel_after_a_lost_monitor(source: Machine, destination: Machine) -> None:
    held(source, destination)
    lose_monitor(source)
    until_lost(source)
    with pytest.raises(QMPConnectionError):
        source.migration.cancel()
    source.qmp.reconnect()
    assert source.migration.cancel().status in CANCELLED
    with pytest.raises(MigrationError, match="was cancelled"):
        source.migration.wait()
    assert_lives(source)
    assert_destination_failed(destination)


def test_it_completes_without_a_monitor(source: Machine, destination: Machine) -> None:
    source.qmp.execute("migrate-set-parameters", max_bandwidth=256 * 1024)
    source.migration.start(destination)
    source.qmp.execute("migrate-set-parameters", max_bandwidth=64 * 1024 * 1024)
    lose_monitor(source)
    until(lambda: destination.run_state == "running")
    until_lost(source)
    source.qmp.reconnect()
    assert source.migration.wait(timeout=20).status == "completed"
    assert_moved(source, destination)


def test_the_deadline_without_a_monitor(make: Make, source: Machine, destination: Machine) -> None:
    hold(source)
    moving = InThread(lambda: source.migration.to(destination, timeout=4))
    until_held(source)
    lose_monitor(source)
    with pytest.raises(MachineTimeout, match="migrate timed out"):
        moving.result()
    assert "monitor lost" in repr(source.migration)
    with pytest.raises(TransitionError, match="under way"):
        source.migration.to(make("second", *INCOMING))
    source.qmp.reconnect()
    with pytest.raises(MigrationError):
        source.migration.wait(timeout=20)
    assert_lives(source)


def test_the_destination_dies_while_the_monitor_is_lost(source: Machine, destination: Machine) -> None:
    held(source, destination)
    lose_monitor(source)
    until_lost(source)
    waiting = InThread(lambda: source.migration.wait(timeout=30))
    destination.kill()
    source.qmp.reconnect()
    with pytest.raises(MachineDied) as died:
        waiting.result()
    assert died.value.machine == "destination"
    assert_lives(source)


def test_a_destination_of_another_shape(make: Make, source: Machine) -> None:
    destination = make("destination", *INCOMING, "-m", "32", expected_exits=(0, 1))
    with pytest.raises(MigrationError, match="migration of source to destination failed") as error:
        source.migration.to(destination)
    assert (error.value.source, error.value.destination) == ("failed", "failed")
    assert error.value.source_runs
    assert "ize mismatch" in destination.log.text, "which says what the words may leave out"
    assert error.value.destination_error in str(error.value)
    copy = pickle.loads(pickle.dumps(error.value))
    assert (copy.source, copy.destination_error) == ("failed", error.value.destination_error)
    assert_lives(source)
    assert_destination_failed(destination)


@pytest.mark.parametrize("which", ["source", "destination"])
def test_a_shutdown_midway(source: Machine, destination: Machine, which: str) -> None:
    held(source, destination)
    one = source if which == "source" else destination
    one.shutdown()
    assert (one.state, one.reason) == (State.STOPPED, Reason.REQUESTED)


# -- files --------------------------------------------------------------------------------------------------


def test_to_a_file_and_from_it(make: Make, source: Machine, tmp_path: Path) -> None:
    file = tmp_path / "state, of it,offset=0x1000"
    source.console.sendline("ping")
    source.console.expect("pong")
    progress = source.migration.to_file(file)
    assert progress.status == "completed"
    assert (source.run_state, file.stat().st_mode & 0o777) == ("postmigrate", 0o600)
    assert file.stat().st_size >= progress.transferred > 100_000
    source.shutdown()
    for name in ("first", "second"):
        vm = make(name, *INCOMING)
        assert vm.migration.from_file(file).status == "completed"
        assert_lives(vm)
    assert list(tmp_path.iterdir()) == [file]


def test_the_saved_one_can_go_on(source: Machine, destination: Machine, tmp_path: Path) -> None:
    source.migration.to_file(tmp_path / "one")
    source.qmp.execute("cont")
    assert_lives(source)
    with pytest.raises(FileExistsError):
        source.migration.to_file(tmp_path / "one")
    inode = (tmp_path / "one").stat().st_ino
    source.migration.to_file(tmp_path / "one", overwrite=True)
    assert (tmp_path / "one").stat().st_ino != inode
    source.qmp.execute("cont")
    source.migration.to(destination)  # to a machine after a file
    assert_moved(source, destination)
    assert os.listdir(tmp_path) == ["one"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_one_leaves_no_file(source: Machine, tmp_path: Path, overwrite: bool) -> None:
    before = descriptors(source)
    hold(source)
    file = tmp_path / "state"
    if overwrite:
        file.write_text("old")
    with pytest.raises(MachineTimeout):
        source.migration.to_file(file, overwrite=overwrite, timeout=0.5)
    assert_lives_again(source)
    saving = InThread(source.migration.to_file, file, overwrite=overwrite)
    until_held(source)
    source.migration.cancel()
    with pytest.raises(MigrationError) as error:
        saving.result()
    assert error.value.source in CANCELLED
    assert error.value.destination is None
    assert error.value.source_runs
    assert_lives_again(source)
    with pytest.raises(FileNotFoundError):
        source.migration.to_file(tmp_path / "no" / "where", overwrite=overwrite)
    os.kill(source.pid or 0, signal.SIGSTOP)
    saving = InThread(source.migration.to_file, file, overwrite=overwrite)
    os.kill(source.pid or 0, signal.SIGKILL)
    with pytest.raises(MachineDied):
        saving.result()
    # It may still have been made when QEMU died, by a thread that removes it then.
    until(lambda: os.listdir(tmp_path) == (["state"] if overwrite else []))
    assert not overwrite or file.read_text() == "old"
    assert before > 0


def test_a_file_that_is_none(source: Machine, destination: Machine, tmp_path: Path) -> None:
    file = tmp_path / "state"
    with pytest.raises(FileNotFoundError):
        destination.migration.from_file(file)
    for wrong in ("", "a\0b", 5):
        with pytest.raises(ConfigError) as bad:
            destination.migration.from_file(wrong)  # type: ignore[arg-type]
        assert bad.value.field == "path"
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="is no file"):
            destination.migration.from_file(other)
        with pytest.raises(ConfigError, match="is no file"):
            source.migration.to_file(other, overwrite=True)
    assert (tmp_path / "fifo").is_fifo()
    file.write_text("no state at all")
    with pytest.raises(TransitionError, match="not 'inmigrate'"):
        source.migration.from_file(file)
    with pytest.raises(MigrationError, match="failed") as error:
        destination.migration.from_file(file)
    assert (error.value.source, error.value.destination) == (None, "failed")
    assert error.value.destination_error != ""
    assert_destination_failed(destination)
    assert_lives(source)
