"""A third party's plugin: names the guest."""

from vmfsm import LaunchPlan, Machine, escape, hookimpl


class Greeter:
    """Gives the machine a name that QEMU shows, and notes that it ran."""

    name = "greeter"

    def __init__(self, *, greeting: str = "hello", times: int = 1) -> None:
        self.words = [greeting] * times

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self.machine = machine

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.args += ["-name", f"guest={escape(' '.join(self.words))}"]
