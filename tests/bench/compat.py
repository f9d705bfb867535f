"""The drop-in: a whole life of a machine, and a launch that QEMU refuses.

The life is construction, launch, one `qmp("query-status")` and shutdown, beside `Machine` doing the same, and
beside the bare floor. A `Machine` has a console; the drop-in has one where it is asked for.

The refused launch has an unknown option, in each of the three ways that the monitor is reached; its floor is
the time that the same QEMU takes, bare, to exit with the error.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable

from vmfsm import Machine
from vmfsm.compat import QEMUMachine, VMLaunchFailure

from .floor import NO_MACHINE, QEMU, BareQEMU
from .measuring import Figure, Goal, Side, by_turns

ROUNDS, QUICK = 100, 10
REFUSED = (*NO_MACHINE, "-no-such-option")


def measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as directory:
        lives = by_turns(
            rounds,
            dropin=_timed(_dropin),
            console=_timed(lambda: _dropin(console=True)),
            machine=_timed(_machine),
            floor=_timed(_bare),
        )
        refusals = by_turns(
            rounds,
            pair=_timed(lambda: _refused(None)),
            path=_timed(lambda: _refused(f"{directory}/monitor")),
            port=_timed(lambda: _refused(("127.0.0.1", 0))),
            floor=_timed(_bare_refused),
        )
    life, beside = lives["dropin"]["took"], lives["machine"]["took"]
    with_console = lives["console"]["took"]
    refused = refusals["floor"]["took"]
    return [
        Figure("drop-in's life, beside Machine's", "ms", life, beside, Goal("ratio", 1.05)),
        Figure("the same, with a console", "ms", with_console, beside, Goal("ratio", 1.05)),
        Figure("(the same, beside the floor)", "ms", life, lives["floor"]["took"]),
        *(
            Figure(f"refused launch, {what}", "ms", refusals[side]["took"], refused, Goal("ratio", 2))
            for side, what in (("pair", "socket pair"), ("path", "path"), ("port", "TCP port"))
        ),
    ]


def _timed(do: Callable[[], None]) -> Side:
    def side() -> dict[str, float]:
        begin = time.perf_counter()
        do()
        return {"took": (time.perf_counter() - begin) * 1e3}

    return side


def _dropin(console: bool = False) -> None:
    vm = QEMUMachine(QEMU, NO_MACHINE)
    if console:
        vm.set_console()
    vm.launch()
    vm.qmp("query-status")
    vm.shutdown()


def _machine() -> None:
    machine = Machine(QEMU, NO_MACHINE)
    machine.launch()
    machine.qmp.execute("query-status")
    machine.shutdown()


def _bare() -> None:
    with BareQEMU() as qemu:
        qemu.negotiate()
        qemu.execute("query-status")
        qemu.quit()


def _refused(address: str | tuple[str, int] | None) -> None:
    try:
        QEMUMachine(QEMU, REFUSED, monitor_address=address).launch()
    except VMLaunchFailure as refusal:
        assert refusal.exitcode == 1  # noqa: PT017 - it is no test
    else:
        raise AssertionError("QEMU knows that option")


def _bare_refused() -> None:
    command = [QEMU, *REFUSED, "-display", "none"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
