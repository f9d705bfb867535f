"""Plugins: found, checked, configured and put in order."""

import functools
import inspect
import os
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pluggy

from . import hooks
from .errors import ConfigError, PluginLoadError, describe

if typing.TYPE_CHECKING:
    from importlib import metadata

GROUP = "vmfsm.plugins"
AUTOLOAD_VARIABLE = "VMFSM_PLUGIN_AUTOLOAD"


class Implementation(typing.NamedTuple):
    """A hook implementation of one plugin object."""

    plugin: str
    function: Callable[..., object]
    arguments: tuple[str, ...]
    is_async: bool
    looks_on: bool = False
    """The plugin looks at machines, which are no worse for what it had no time for."""


class PluginInfo(typing.NamedTuple):
    """A loaded plugin, and where it comes from."""

    name: str
    distribution: str | None
    """What was installed to have it; `None` for an object that was given."""
    version: str | None
    """Of the distribution."""
    module: str
    """Its class, as `module:name`."""
    path: str | None
    """The file of that; `None` where there is none."""
    hooks: tuple[str, ...]
    """Those that it implements, in the order of a machine's life."""
    options: Mapping[str, object]
    """Those that were given; `{}` for an object, which got them where it was made."""


class PluginSet:
    """The plugin objects of one machine, in order.

    :param plugins: by name.
    :param found: the entry points of those that were not given as objects, and the options for them.
    """

    def __init__(
        self,
        plugins: Mapping[str, object],
        found: "Mapping[str, tuple[metadata.EntryPoint, Mapping[str, object]]]",
    ) -> None:
        self._plugins = {name: plugins[name] for name in _in_order(plugins)}
        self._implementations = _collect(self._plugins)
        self._found = found

    def __iter__(self) -> Iterator[str]:
        return iter(self._plugins)

    def get(self, name: str) -> object | None:
        return self._plugins.get(name)

    def implementations(self, hook: str) -> Sequence[Implementation]:
        """Those of `hook`, in the order of the plugins."""
        return self._implementations.get(hook, ())

    def infos(self) -> tuple[PluginInfo, ...]:
        """About each of them. From any thread."""
        return tuple(self._info(name, plugin) for name, plugin in self._plugins.items())

    def _info(self, name: str, plugin: object) -> PluginInfo:
        entry, options = self._found.get(name, (None, {}))
        distribution, version = (None, None) if entry is None else _distribution(entry)
        kind = type(plugin)
        return PluginInfo(
            name,
            distribution,
            version,
            f"{kind.__module__}:{kind.__qualname__}",
            getattr(sys.modules.get(kind.__module__), "__file__", None),
            tuple(
                hook
                for hook in hooks.ALL_HOOKS
                if any(one.plugin == name for one in self.implementations(hook))
            ),
            dict(options),
        )


def load(given: object, block: object, options: object) -> PluginSet:
    """The plugins of a machine: what is installed and not blocked, with its options, and the given objects.

    :raises ConfigError: for options and objects that are wrong, and for what is missing or in a circle.
    :raises PluginLoadError: for a plugin that is wrong; further ones are in its `errors`.
    """
    return _load(_check_sequence("plugins", given), _check_block(block), _check_options_by_plugin(options))


def _check_sequence(field: str, value: object) -> Sequence[object]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(f"{field} must be a sequence, not {value!r}", field=field)
    return value


def _check_block(block: object) -> Sequence[str]:
    for name in (names := _check_sequence("block", block)):
        if not isinstance(name, str):
            raise ConfigError(f"block must hold names of plugins, not {name!r}", field="block")
    return typing.cast(Sequence[str], names)


def _check_options_by_plugin(options: object) -> Mapping[str, Mapping[str, object]]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"options must be a mapping by plugin, not {options!r}", field="options")
    for name, values in options.items():
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            field = f"options[{name!r}]"
            raise ConfigError(f"{field} must be a mapping of options, not {values!r}", field=field)
    return options


def _load(
    given: Sequence[object], block: Sequence[str], options: Mapping[str, Mapping[str, object]]
) -> PluginSet:
    plugins: dict[str, object] = {}
    found: dict[str, tuple[metadata.EntryPoint, Mapping[str, object]]] = {}
    for plugin in given:
        name = _given_name(plugin)
        if name in plugins:
            raise ConfigError(f"two plugins given are named {name!r}", field="plugins")
        plugins[name] = plugin
    given_names = set(plugins)

    errors: list[PluginLoadError] = []
    for name, entry_point in installed().items():
        if name in given_names or name in block:
            continue
        try:
            factory = _load_entry_point(entry_point)
        except PluginLoadError as error:
            errors.append(error)
            continue
        found[name] = entry_point, options.get(name, {})
        plugins[name] = _construct(name, factory, found[name][1])
    if errors:
        raise errors[0].add_errors(errors[1:])

    for name in options:
        if name in given_names:
            raise ConfigError(
                f"plugin {name!r} was given as an object; options go to where that is made",
                field=f"options[{name!r}]",
            )
        if name not in plugins:
            what = "is blocked" if name in block else "is not installed"
            raise ConfigError(f"options for plugin {name!r}, which {what}", field=f"options[{name!r}]")

    return PluginSet(plugins, found)


# -- finding ------------------------------------------------------------------------------------------------


@functools.cache
def _scan() -> "tuple[metadata.EntryPoint, ...]":
    from importlib import metadata  # takes longer to import than all of vmfsm

    return tuple(sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)))


def installed() -> "dict[str, metadata.EntryPoint]":
    """The entry points that count, by name. `VMFSM_PLUGIN_AUTOLOAD=0` leaves those of vmfsm itself.

    :raises ConfigError: for any other value of it, which somebody may have meant to be "off".
    :raises PluginLoadError: where two distributions offer the same name.
    """
    said = os.environ.get(AUTOLOAD_VARIABLE) or "1"
    if said not in {"0", "1"}:
        raise ConfigError(f"{AUTOLOAD_VARIABLE} must be 0 or 1, not {said!r}", field=AUTOLOAD_VARIABLE)
    autoload = said == "1"
    found: dict[str, metadata.EntryPoint] = {}
    for entry in _scan():
        if not autoload and (entry.dist is None or entry.dist.name != "vmfsm"):
            continue
        other = found.setdefault(entry.name, entry)
        if other is not entry and (other.value, _distribution_of(other)) != (
            entry.value,
            _distribution_of(entry),
        ):
            raise _load_error(
                entry, f"plugin {entry.name!r} is offered by {_distribution_of(other)} as well: uninstall one"
            )
    return found


@functools.cache
def _distribution(entry: "metadata.EntryPoint") -> tuple[str | None, str | None]:
    """Name and version. Read from a file, the first time."""
    return (entry.dist.name, entry.dist.version) if entry.dist else (None, None)


def _distribution_of(entry: "metadata.EntryPoint") -> str | None:
    name, version = _distribution(entry)
    return name and f"{name} {version}"


def _load_error(entry: "metadata.EntryPoint", message: str) -> PluginLoadError:
    error = PluginLoadError(
        f"{message} (entry point '{entry.name} = {entry.value}' of {_distribution_of(entry)})"
    )
    error.plugin, error.entry_point = entry.name, f"{entry.name} = {entry.value}"
    error.distribution = _distribution_of(entry)
    return error


def _load_entry_point(entry: "metadata.EntryPoint") -> type:
    try:
        loaded = entry.load()
    except Exception as error:
        raise _load_error(entry, f"plugin {entry.name!r} could not be imported: {describe(error)}") from error
    if not inspect.isclass(loaded):
        raise _load_error(entry, f"plugin {entry.name!r} must be a class, not {loaded!r}")
    if getattr(loaded, "name", entry.name) != entry.name:
        raise _load_error(entry, f"plugin {entry.name!r} calls itself {getattr(loaded, 'name', None)!r}")
    return loaded


def _given_name(plugin: object) -> str:
    name = getattr(plugin, "name", None)
    if inspect.isclass(plugin) or not isinstance(name, str) or not name:
        raise ConfigError(
            f"plugins takes objects of plugin classes, each with a name, not {plugin!r}", field="plugins"
        )
    return name


_claimed: "weakref.WeakValueDictionary[int, object]" = weakref.WeakValueDictionary()


def claim(plugins: Iterable[object]) -> None:
    """Note that these objects belong to a machine.

    :raises ConfigError: for one that belongs to another.
    """
    for plugin in plugins:
        _claim(_given_name(plugin), plugin)


def give_back(plugins: Iterable[object]) -> None:
    """The machine that was to have them was not made."""
    for plugin in plugins:
        _claimed.pop(id(plugin), None)


def _claim(name: str, plugin: object) -> None:
    if _claimed.get(id(plugin)) is plugin:
        raise ConfigError(
            f"this object of plugin {name!r} belongs to another machine already: make one for each",
            field="plugins",
        )
    try:
        _claimed[id(plugin)] = plugin
    except TypeError:
        raise ConfigError(
            f"objects of plugin {name!r} must allow weak references (`__weakref__` in its `__slots__`)",
            field="plugins",
        ) from None


# -- options ------------------------------------------------------------------------------------------------


def _construct(name: str, factory: type, options: Mapping[str, object]) -> object:
    if options:
        _check_options(name, factory, options)
    try:
        return factory(**options)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"plugin {name!r} does not take these options: {describe(error)}", field=f"options[{name!r}]"
        ) from error


def _check_options(name: str, factory: type, options: Mapping[str, object]) -> None:
    parameters = inspect.signature(factory).parameters
    names = [p.name for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    takes_any = len(names) < len(parameters)
    try:
        annotations = typing.get_type_hints(factory.__init__)  # type: ignore[misc]  # of this very class
    except Exception:  # noqa: BLE001 - names that exist for type checkers only: then the plugin's own checks have to do
        annotations = {}
    for option, value in options.items():
        field = f"options[{name!r}][{option!r}]"
        if option not in names:
            if takes_any:
                continue
            known = ", ".join(names) or "none"
            raise ConfigError(f"plugin {name!r} has no option {option!r} (it has: {known})", field=field)
        if not _fits(value, annotations.get(option, object)):
            wanted = annotations[option]
            raise ConfigError(
                f"option {option!r} of plugin {name!r} must be {_type_name(wanted)}, not {value!r}",
                field=field,
            )


def _fits(value: object, annotation: object) -> bool:
    """Whether `value` is of the annotated type, as far as that is a class or a union of such."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(annotation))
    if annotation is None:
        return value is None
    if typing.get_origin(annotation) is typing.Literal:
        return value in typing.get_args(annotation)
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return True
    if isinstance(value, bool):
        return issubclass(bool, kind) and kind is not int
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def _type_name(annotation: object) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


# -- order --------------------------------------------------------------------------------------------------


def _names(plugin: object, attribute: str) -> tuple[str, ...]:
    value = getattr(plugin, attribute, ())
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(n, str) for n in value)
    ):
        raise _wrong(plugin, f"its {attribute!r} must be a sequence of names, not {value!r}")
    return tuple(value)


def _wrong(plugin: object, message: str, hook: str = "") -> PluginLoadError:
    name = str(getattr(plugin, "name", type(plugin).__name__))
    error = PluginLoadError(
        f"plugin {name!r} ({type(plugin).__module__}.{type(plugin).__qualname__}): {message}"
    )
    error.plugin, error.hook = name, hook
    return error


def _in_order(plugins: Mapping[str, object]) -> list[str]:
    first: dict[str, set[str]] = {name: set() for name in plugins}  # what has to come before each
    for name, plugin in plugins.items():
        for other in _names(plugin, "needs"):
            if other not in plugins:
                raise _wrong(plugin, f"needs plugin {other!r}, which is not there")
            first[name].add(other)
        first[name] |= set(_names(plugin, "after")) & plugins.keys()
        for other in set(_names(plugin, "before")) & plugins.keys():
            first[other].add(name)

    def rank(name: str) -> tuple[int, str]:
        plugin = plugins[name]
        return ("*" in _names(plugin, "after")) - ("*" in _names(plugin, "before")), name

    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise _wrong(plugins[name], f"its order is a circle: {circle}")
        if name not in order:
            for other in sorted(first[name], key=rank):
                visit(other, (*path, name))
            order.append(name)

    for name in sorted(plugins, key=rank):
        visit(name, ())
    return order


# -- hook implementations -----------------------------------------------------------------------------------

# What pluggy made of a plugin class, since looking through one costs more than a machine should.
_of_class: "weakref.WeakKeyDictionary[type, dict[str, tuple[tuple[str, ...], bool]]]" = (
    weakref.WeakKeyDictionary()
)


def _collect(plugins: Mapping[str, object]) -> dict[str, list[Implementation]]:
    collected: dict[str, list[Implementation]] = {}
    for name, plugin in plugins.items():
        enabled = getattr(plugin, "enabled", True)
        if not isinstance(enabled, bool):
            raise _wrong(plugin, f"its 'enabled' must be a bool, not {enabled!r}")
        for hook, (arguments, is_async) in (_hooks_of(plugin) if enabled else {}).items():
            looks_on = getattr(plugin, "looks_on", False) is True
            implementation = Implementation(name, getattr(plugin, hook), arguments, is_async, looks_on)
            collected.setdefault(hook, []).append(implementation)
    return collected


def _hooks_of(plugin: object) -> dict[str, tuple[tuple[str, ...], bool]]:
    if any(hasattr(value, "vmfsm_impl") for value in getattr(plugin, "__dict__", {}).values()):
        return _examine(plugin)  # it has hooks that its class has not
    found = _of_class.get(type(plugin))
    if found is None:
        found = _of_class[type(plugin)] = _examine(plugin)
    return found


def _examine(plugin: object) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Have pluggy validate `plugin` against the specs: its hooks, with their arguments and whether async.

    Calling them, in our order and each to its end, is ours: see `hookcalls`.
    """
    for hook in hooks.ALL_HOOKS:
        function = getattr(plugin, hook, None)
        if callable(function) and not hasattr(function, "vmfsm_impl"):
            raise _wrong(plugin, f"{hook} is a hook and is not marked with @hookimpl", hook)
    manager = pluggy.PluginManager("vmfsm")
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _wrong(plugin, str(error)) from error
    found = {}
    for hook in hooks.ALL_HOOKS:
        for impl in getattr(manager.hook, hook).get_hookimpls():
            if impl.wrapper or impl.hookwrapper or impl.tryfirst or impl.trylast:
                raise _wrong(
                    plugin,
                    f"{hook}: wrappers, tryfirst and trylast mean nothing here; use before, after",
                    hook,
                )
            is_async = inspect.iscoroutinefunction(impl.function)
            if is_async and hook in hooks.PLAIN_HOOKS:
                raise _wrong(plugin, f"{hook} must be a plain function", hook)
            found[hook] = (tuple(impl.argnames), is_async)
    return found
