"""Plugin objects: what is accepted as one, the order they get, and what they may call their hooks."""

import pluggy
import pytest

from tests.conftest import MakeMachine
from vmfsm import ConfigError, LaunchPlan, Machine, PluginLoadError, VMError, hookimpl, hookspec


class Ordered:
    """Notes that it was called."""

    def __init__(
        self,
        name: str,
        *,
        before: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        needs: tuple[str, ...] = (),
    ) -> None:
        self.name, self.before, self.after, self.needs = name, before, after, needs
        self.called: list[str] = []

    @hookimpl
    def configured(self) -> None:
        self.called.append(self.name)


def order_of(bare: MakeMachine, *plugins: Ordered) -> str:
    called: list[str] = []
    for plugin in plugins:
        plugin.called = called
    bare(*plugins)
    return " ".join(called)


def test_by_name_where_nobody_asks_for_more(bare: MakeMachine) -> None:
    assert order_of(bare, Ordered("c"), Ordered("a"), Ordered("b")) == "a b c"


@pytest.mark.parametrize(
    ("plugins", "order"),
    [
        ([Ordered("a", after=("b",)), Ordered("b")], "b a"),
        ([Ordered("a"), Ordered("b", before=("a",))], "b a"),
        ([Ordered("a", needs=("b",)), Ordered("b")], "b a"),
        ([Ordered("a", after=("not-there",), before=("nor-there",)), Ordered("b")], "a b"),
        ([Ordered("a", after=("c",)), Ordered("b", after=("a",)), Ordered("c")], "c a b"),
        ([Ordered("a"), Ordered("b"), Ordered("z", before=("*",))], "z a b"),
        ([Ordered("a", after=("*",)), Ordered("b"), Ordered("c")], "b c a"),
        ([Ordered("a", after=("*",)), Ordered("b", after=("*",)), Ordered("c")], "c a b"),
        ([Ordered("a", before=("*",), after=("b",)), Ordered("b")], "b a"),
        ([Ordered("y", before=("*",)), Ordered("z", before=("*", "y")), Ordered("a")], "z y a"),
        ([Ordered("a", after=("*",)), Ordered("b", needs=("a",)), Ordered("c", before=("a",))], "c a b"),
    ],
)
def test_order(bare: MakeMachine, plugins: list[Ordered], order: str) -> None:
    assert (
        order_of(bare, *(Ordered(p.name, before=p.before, after=p.after, needs=p.needs) for p in plugins))
        == order
    )
    again = [Ordered(p.name, before=p.before, after=p.after, needs=p.needs) for p in reversed(plugins)]
    assert order_of(bare, *again) == order, "whatever the order they were given in"


@pytest.mark.parametrize(
    ("plugins", "circle"),
    [
        ([Ordered("a", after=("a",))], "a -> a"),
        ([Ordered("a", after=("b",)), Ordered("b", after=("a",))], "a -> b -> a"),
        ([Ordered("a", before=("b",)), Ordered("b", before=("a",))], "a -> b -> a"),
        (
            [Ordered("a", needs=("b",)), Ordered("b", needs=("c",)), Ordered("c", after=("a",))],
            "a -> b -> c -> a",
        ),
    ],
)
def test_a_circle_is_refused(bare: MakeMachine, plugins: list[Ordered], circle: str) -> None:
    with pytest.raises(PluginLoadError) as caught:
        bare(*plugins)
    assert circle in str(caught.value)
    assert caught.value.plugin == "a"


def test_what_is_needed_must_be_there(bare: MakeMachine) -> None:
    with pytest.raises(PluginLoadError) as caught:
        bare(Ordered("a", needs=("b",)))
    assert caught.value.plugin == "a"
    assert "'a'" in str(caught.value)
    assert "needs plugin 'b'" in str(caught.value)


@pytest.mark.parametrize("attribute", ["before", "after", "needs"])
@pytest.mark.parametrize("value", ["qmp", (1,)])
def test_order_is_said_in_sequences_of_names(bare: MakeMachine, attribute: str, value: object) -> None:
    plugin = Ordered("a")
    setattr(plugin, attribute, value)
    with pytest.raises(PluginLoadError) as caught:
        bare(plugin)
    assert f"'{attribute}'" in str(caught.value)


# -- hooks --------------------------------------------------------------------------------------------------


class UnknownHook:
    name = "mine"

    @hookimpl
    def pre_lunch(self) -> None: ...


class Undecorated:
    name = "mine"

    def post_launch(self, machine: Machine) -> None: ...


class WrongArgument:
    name = "mine"

    @hookimpl
    def post_launch(self, machine: Machine, plan: LaunchPlan) -> None: ...


class Wrapping:
    name = "mine"

    @hookimpl(wrapper=True)
    def post_launch(self) -> object:
        return (yield)


class OldWrapping:
    name = "mine"

    @hookimpl(hookwrapper=True)
    def post_launch(self) -> object:
        yield


class First:
    name = "mine"

    @hookimpl(tryfirst=True)
    def post_launch(self) -> None: ...


class Last:
    name = "mine"

    @hookimpl(trylast=True)
    def post_launch(self) -> None: ...


class AsyncObserver:
    name = "mine"

    @hookimpl
    async def records(self) -> None: ...


class AsyncStateObserver:
    name = "mine"

    @hookimpl
    async def state_changed(self) -> None: ...


class AsyncConfigured:
    name = "mine"

    @hookimpl
    async def configured(self) -> None: ...


@pytest.mark.parametrize(
    ("plugin", "why"),
    [
        (UnknownHook, "pre_lunch"),
        (Undecorated, "post_launch is a hook and is not marked with @hookimpl"),
        (WrongArgument, "plan"),
        (Wrapping, "wrappers"),
        (OldWrapping, "wrappers"),
        (First, "tryfirst"),
        (Last, "trylast"),
        (AsyncObserver, "records must be a plain function"),
        (AsyncStateObserver, "state_changed must be a plain function"),
        (AsyncConfigured, "configured must be a plain function"),
    ],
)
def test_hooks_that_are_wrong(bare: MakeMachine, plugin: type, why: str) -> None:
    for _ in range(2):  # what is known of a class is kept
        with pytest.raises(PluginLoadError) as caught:
            bare(plugin())
        error = caught.value
        assert error.plugin == "mine"
        assert (error.entry_point, error.distribution) == (None, None)
        assert "'mine'" in str(error)
        assert f"{plugin.__module__}.{plugin.__qualname__}" in str(error)
        assert why in str(error)


class Idle(Ordered):
    enabled = False


def test_one_that_takes_no_part(bare: MakeMachine) -> None:
    idle, busy = Idle("idle"), Ordered("busy", after=("idle",))
    machine = bare(idle, busy)
    assert (idle.called, busy.called) == ([], ["busy"])
    assert machine.plugin("idle") is idle
    assert {info.name: info.hooks for info in machine.plugins} == {"idle": (), "busy": ("configured",)}


def test_whether_it_takes_part_is_said_by_a_bool(bare: MakeMachine) -> None:
    plugin = Idle("idle")
    plugin.enabled = None  # type: ignore[assignment]
    with pytest.raises(PluginLoadError, match="its 'enabled' must be a bool, not None"):
        bare(plugin)


def test_the_markers_are_pluggys() -> None:
    assert isinstance(hookimpl, pluggy.HookimplMarker)
    assert isinstance(hookspec, pluggy.HookspecMarker)


class Dynamic:
    """Has a hook that its class has not."""

    name = "dynamic"

    def __init__(self) -> None:
        self.ran = False

        @hookimpl
        def configured(machine: Machine) -> None:
            self.ran = True

        self.configured = configured


class WithoutHooks:
    name = "without"
    answer = 42


class Inheriting(Ordered):
    """Hooks are inherited, and may be replaced."""

    @hookimpl
    def configured(self) -> None:
        super().configured()
        self.called.append("more")


def test_hooks_of_an_object_of_its_own(bare: MakeMachine) -> None:
    plugin = Dynamic()
    bare(plugin)
    assert plugin.ran


def test_no_hooks_are_fine(bare: MakeMachine) -> None:
    assert bare(WithoutHooks()).plugin("without").answer == 42


def test_inherited_hooks(bare: MakeMachine) -> None:
    plugin = Inheriting("a")
    bare(plugin)
    assert plugin.called == ["a", "more"]


def test_one_hook_is_known_from_the_other(bare: MakeMachine) -> None:
    """Two plugins of one class are two."""
    one, other = Ordered("one"), Ordered("other")
    bare(one, other)
    assert (one.called, other.called) == (["one"], ["other"])


# -- configured ---------------------------------------------------------------------------------------------


class Refusing:
    name = "refusing"

    def __init__(self, error: Exception) -> None:
        self.error = error

    @hookimpl
    def configured(self, machine: Machine) -> None:
        assert machine.plugin("refusing") is self
        assert machine.name
        raise self.error


def test_a_config_error_of_configured_is_the_users(bare: MakeMachine) -> None:
    wrong = ConfigError("never on a Sunday", field="day")
    with pytest.raises(ConfigError) as caught:
        bare(Refusing(wrong))
    assert caught.value is wrong


# -- objects ------------------------------------------------------------------------------------------------


class Slotted:
    __slots__ = ()
    name = "slotted"


@pytest.mark.parametrize(
    "wrong", [[Ordered], [None], ["qmp"], [object()], [type("Nameless", (), {"name": ""})()], [Slotted()]]
)
def test_what_is_no_plugin_object(bare: MakeMachine, wrong: list[object]) -> None:
    with pytest.raises(ConfigError) as caught:
        bare(*wrong)
    assert caught.value.field == "plugins"


def test_an_object_belongs_to_one_machine(bare: MakeMachine) -> None:
    plugin = Ordered("mine")
    machine = bare(plugin)
    with pytest.raises(ConfigError) as caught:
        bare(plugin)
    assert caught.value.field == "plugins"
    assert "'mine'" in str(caught.value)
    assert "another machine" in str(caught.value)
    assert machine.plugin("mine") is plugin
    assert plugin.called == ["mine"], "of the second machine nothing came to be"


def test_an_object_that_was_refused_can_be_used(bare: MakeMachine) -> None:
    plugin = Ordered("mine", needs=("other",))
    with pytest.raises(PluginLoadError):
        bare(plugin)
    assert bare(plugin, Ordered("other")).plugin("mine") is plugin


def test_two_objects_of_one_name(bare: MakeMachine) -> None:
    with pytest.raises(ConfigError) as caught:
        bare(Ordered("mine"), Ordered("mine"))
    assert caught.value.field == "plugins"
    assert "'mine'" in str(caught.value)


def test_options_for_an_object(bare: MakeMachine) -> None:
    with pytest.raises(ConfigError) as caught:
        bare(Ordered("mine"), options={"mine": {"level": 1}})
    assert caught.value.field == "options['mine']"
    assert "'mine'" in str(caught.value)


def test_options_for_what_is_not_there(bare: MakeMachine) -> None:
    with pytest.raises(ConfigError) as caught:
        bare(options={"nobody": {}})
    assert caught.value.field == "options['nobody']"
    assert "not installed" in str(caught.value)


def test_asking_for_what_is_not_there(bare: MakeMachine) -> None:
    machine = bare(Ordered("mine"), name="demo")
    with pytest.raises(ConfigError) as caught:
        machine.plugin("yours")
    assert (caught.value.field, caught.value.machine) == ("yours", "demo")
    for part in ("demo", "'yours'", "mine"):
        assert part in str(caught.value)


@pytest.mark.parametrize("offer", ["qmp", "console", "consoles", "fds", "log"])
def test_what_a_blocked_plugin_would_have_offered(bare: MakeMachine, offer: str) -> None:
    with pytest.raises(VMError) as caught:
        getattr(bare(), offer)
    assert type(caught.value) is ConfigError
