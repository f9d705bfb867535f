"""`machine.verdicts`."""

import os
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from vmfsm import Action, ConfigError, Deadline, LaunchPlan, Machine, Verdict, hookimpl
from vmfsm_plugins.blocking import in_thread

from .dumping import Dump
from .expecting import Expectation
from .options import check_action, check_dump, check_dump_timeout, check_kind, check_rules
from .rules import CONSOLE, OUTPUT, Rule
from .watcher import MOST, Watcher


class Verdicts:
    """`machine.verdicts`: what goes wrong in the guest, or in QEMU, is noticed as it happens.

    The consoles and QEMU's output are watched for patterns, from the first byte to the last, and what
    follows is decided for the verdicts of others as well (`guest-panicked`, `watchdog`, `boot-loop`, …). Of
    one kind the first 200 of a launch are verdicts, further ones are counted.

    :param rules: by kind, differences to the built-in ones: `None` (no such verdicts), a pattern, or a
        mapping with some of `pattern` (or a list of them), `source` ("console", "output", "both"),
        `action` and `dump`.
        In a pattern `*` stands for anything within a line and a newline for the end of a line.
    :param action: what follows where a rule says nothing: "record", "wake" (the default), "fail" or "none".
    :param dump: an existing directory; QEMU writes the guest's memory there before the first verdict of a
        launch wakes anybody or ends QEMU.
    :param dump_timeout: seconds that this may take.
    :raises ConfigError: for what is wrong with any of these.
    """

    name = "verdicts"
    after: ClassVar = ("*",)  # what others say of a verdict counts

    def __init__(
        self,
        *,
        rules: Mapping[str, object] | None = None,
        action: str | None = None,
        dump: "str | os.PathLike[str] | None" = None,
        dump_timeout: float = 30.0,
    ) -> None:
        default = None if action is None else check_action(action, "options['verdicts']['action']")
        self._rules = check_rules({} if rules is None else rules, default)
        self._other = Rule(action=default or "wake")
        self._dump_directory = check_dump(dump)
        self._dump_timeout = check_dump_timeout(dump_timeout)
        self._machine: Machine | None = None
        self._watchers: list[Watcher] = []
        self._scopes: list[Expectation] = []
        self._seen: list[Verdict] = []
        self._counts: Counter[str] = Counter()
        self._dump: Dump | None = None

    def __repr__(self) -> str:
        return f"<Verdicts: {', '.join(verdict.kind for verdict in self._seen) or 'none'}>"

    @property
    def seen(self) -> tuple[Verdict, ...]:
        """Those of this launch, or of the last one, oldest first, whatever followed. Never waits."""
        return tuple(self._seen)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many there were by kind, also of those that are counted only. Never waits."""
        counts = Counter(self._counts)
        for watcher in self._watchers:
            counts.update(watcher.uncounted())
        return MappingProxyType(dict(+counts))

    def expected(self, *kinds: str, timeout: float | None = 30) -> Expectation:
        """A scope in which at least one verdict of each of these kinds must come; they are no trouble then.

            with vm.verdicts.expected("kernel-oops") as seen:
                ...
            assert "null-ptr" in seen.verdicts[0].what["message"]

        :param timeout: seconds that leaving it waits for those that have not come. An exception of the block
            leaves it at once.
        :raises ConfigError: without kinds, and for one that is spelt nearly like one that there is.

        It may be entered before a launch, and left after another one. Leaving it raises what every wait on a
        machine does: `MachineTimeout`, `MachineDied` when QEMU has ended without, `GuestPanicked` for a
        verdict of another kind; `TransitionError` before the first launch, and on the I/O thread, where it is
        for `async with`.
        """
        Deadline(timeout)
        return self._scope(kinds, timeout, demanded=True)

    def allowed(self, *kinds: str) -> Expectation:
        """A scope in which verdicts of these kinds are no trouble; whether any comes is all the same.

        What the guest says before it is left and is read after that is not in it: wait for what comes behind.
        Never waits.

        :raises ConfigError: without kinds, and for one that is spelt nearly like one that there is.
        """
        return self._scope(kinds, 0, demanded=False)

    def _scope(self, kinds: tuple[str, ...], timeout: float | None, *, demanded: bool) -> Expectation:
        if not kinds or not all(isinstance(kind, str) and kind for kind in kinds):
            raise ConfigError(f"kinds of verdicts are named by one str or more, not {kinds!r}", field="kinds")
        for kind in kinds:
            check_kind(kind, self._rules, "kinds")
        assert self._machine is not None, "a plugin object is configured by its machine"
        return Expectation(
            self._machine, self._scopes, self._flush, kinds, timeout, demanded=demanded, most=MOST
        )

    # -- hooks ----------------------------------------------------------------------------------------------

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self._machine = machine
        streams: list[tuple[str, str, object]] = []
        for source, get in ((OUTPUT, lambda: {OUTPUT: machine.log}), (CONSOLE, lambda: machine.consoles)):
            try:
                streams += [(source, name, stream) for name, stream in get().items()]
            except ConfigError:  # the plugin is blocked
                continue
        for source, name, stream in streams:
            subscribe = getattr(stream, "subscribe", None)  # somebody's plugin in its place may have none
            if subscribe is not None:
                self._watchers.append(Watcher(name, source, self._rules, machine.report, self._wanted))
                subscribe(self._watchers[-1])

    @hookimpl
    async def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        self._seen = []
        self._counts = Counter()
        plan.on_evidence(lambda: {"verdicts": self.seen})
        if self._dump_directory is not None:
            directory = self._dump_directory
            if not await in_thread(lambda: os.path.isdir(directory)):
                raise NotADirectoryError(
                    f"options['verdicts']['dump'] is not a directory: {self._dump_directory}"
                )
            path = plan.log_path(os.path.join(self._dump_directory, f"{machine.name}.core"))
            self._dump = Dump(machine, path, self._dump_timeout, self._settled)
            plan.on_exit(self._dump.end)

    @hookimpl
    def judge(self, machine: Machine, verdict: Verdict) -> Action:
        rule = self._rules.get(verdict.kind, self._other)
        if rule.action == "none":
            return "none"
        self._counts[verdict.kind] += 1
        scope = self._scope_of(verdict.kind)
        if scope is not None:
            scope.hear(verdict)
        if self._counts[verdict.kind] > MOST:
            return "none"
        self._seen.append(verdict)
        if scope is not None:
            return "expected"
        acts = rule.action in {"wake", "fail"}
        if acts and self._dump is not None and self._dump.takes(verdict, rule.action, wanted=rule.dump):
            return "none"
        return rule.action

    def _scope_of(self, kind: str) -> Expectation | None:
        scopes = tuple(self._scopes)  # other threads enter and leave them
        return next((scope for scope in reversed(scopes) if kind in scope.kinds), None)

    def _wanted(self, kind: str) -> bool:
        scope = self._scope_of(kind)
        return scope is not None and kind not in {verdict.kind for verdict in scope.verdicts}

    def _settled(self, held: Verdict, verdict: Verdict, action: Action) -> None:
        self._seen = [verdict if one is held else one for one in self._seen]
        assert self._machine is not None
        self._machine.report(verdict, action=action)

    def _flush(self) -> None:
        for watcher in self._watchers:
            watcher.flush()
