"""What was seen last of a machine, for its errors."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar, cast

from .errors import (
    ConfigError,
    Evidence,
    LaunchError,
    MachineTimeout,
    TransitionError,
    VMError,
    describe,
)
from .iothread import IOThread
from .plan import LaunchPlan
from .redaction import Secrets

if TYPE_CHECKING:
    from .machine import Machine

E = TypeVar("E", bound=VMError)


def collect(plan: LaunchPlan | None, secrets: Secrets) -> Evidence:
    """What the plugins of a launch have seen, without secrets. From any thread; never waits."""
    more: dict[str, object] = {}
    for _, seen in tuple(plan.evidence) if plan is not None else ():
        try:
            found = dict(seen())
            found["events"] = tuple(cast("Iterable[object]", found.get("events", ())))
            more.update({key: value for key, value in found.items() if value})
        except BaseException as error:
            if not (isinstance(error, Exception) or IOThread.get().inside()):
                raise  # an interrupt, which is the caller's
            more["evidence-error"] = describe(error)  # it must not hide the error it was to explain
    if secrets:
        more = secrets.redact_all(more)
    return Evidence(
        str(more.pop("console", "")),
        str(more.pop("output", "")),
        cast("tuple[Mapping[str, object], ...]", more.pop("events", ())),
        more,
    )


def complete(error: E, machine: "Machine") -> E:
    """An error with what it is to tell of its machine, unless it tells already."""
    if error.machine is None:
        error.machine = machine.name
    if error.state is None:
        error.state = machine.state
    if not any(error.evidence) and not isinstance(error, ConfigError | TransitionError):
        error.attach(machine.evidence())
        run_state = machine.run_state
        if isinstance(error, MachineTimeout) and run_state not in {None, "running"}:
            error.add_note(f"QEMU's run state: {run_state}")
    if isinstance(error, LaunchError):
        error.output = error.evidence.output
    return error
