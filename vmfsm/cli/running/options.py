"""The options of `vmfsm run`, parsed: from words of a command line to what `Machine` takes."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

KINDS = (
    *(
        "boot-loop",
        "companion-ended",
        "guest-crashloaded",
        "guest-panicked",
        "hung-task",
        "initramfs",
        "kasan",
    ),
    *("kcsan", "kernel-lockup", "kernel-oops", "kernel-panic", "kfence", "kmsan", "kvm-error", "qemu-abort"),
    *("qemu-asan", "qemu-assertion", "qemu-lsan", "qemu-msan", "qemu-tsan", "qemu-ubsan", "rcu-stall"),
    *("ubsan", "watchdog"),
)
"""The kinds of verdicts (docs/verdicts.md)."""
GROUPS = {
    "panic": ("kernel-panic", "guest-panicked", "guest-crashloaded"),
    "oops": ("kernel-oops",),
    "lockup": ("kernel-lockup", "hung-task", "rcu-stall", "watchdog"),
    "sanitizer": ("kasan", "kcsan", "kfence", "kmsan", "ubsan"),
    "all": KINDS,
}
OWN_KIND = "fail-on"
"""The kind of what `--fail-on PATTERN` finds."""


def kinds_of(name: str) -> tuple[str, ...]:
    """The kinds that a name stands for; none where it is a pattern."""
    return GROUPS.get(name, (name,) if name in KINDS else ())


def verdict_rules(fail_on: Iterable[str], allow: Iterable[str]) -> dict[str, Any]:
    """The option `rules` of plugin verdicts.

    :raises ValueError: for what is no kind, and for one that is both.
    """
    rules: dict[str, Any] = {}
    wanted: set[str] = set()
    patterns = []
    for name in fail_on:
        if kinds := kinds_of(name):
            wanted.update(kinds)
        else:
            patterns.append(name)
    for name in allow:
        if not (kinds := kinds_of(name)):
            raise ValueError(f"--allow {name}: no such kind (there are: {', '.join((*GROUPS, *KINDS))})")
        if wanted.issuperset(kinds):
            raise ValueError(f"both --fail-on and --allow {name}")
        rules.update({kind: {"action": "record"} for kind in kinds if kind not in wanted})
    if patterns:
        rules[OWN_KIND] = {"pattern": patterns, "source": "both"}
    return rules


def environment(given: Iterable[str]) -> dict[str, str | None]:
    """`NAME=VALUE` sets, `NAME` alone takes away."""
    changes: dict[str, str | None] = {}
    for word in given:
        name, equals, value = word.partition("=")
        changes[name] = value if equals else None
    return changes


def plugin_options(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`PLUGIN.OPTION=VALUE`, the value as JSON where it is that, else text; dots in the option lead on.

    :raises ValueError: for anything else.
    """
    options: dict[str, dict[str, Any]] = {}
    for word in given:
        path, equals, text = word.partition("=")
        names = path.split(".")
        if not equals or len(names) < 2 or not all(names):
            raise ValueError(f"not an option of a plugin: {word!r} (wanted: PLUGIN.OPTION=VALUE)")
        inner: Any = options
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{word!r}: {name!r} has a value already")
        try:
            inner[names[-1]] = json.loads(text)
        except ValueError:
            inner[names[-1]] = text
    return options


def console_options(
    given: Iterable[str], files: Iterable[str], options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The options of plugin console, from `--console` and `--console-file`; `None` for no console at all.

    :raises ValueError: for what does not fit together.
    """
    consoles: dict[str, dict[str, Any]] = {}
    names = list(given)
    if names == ["none"]:
        if list(files):
            raise ValueError("--console-file: there is no console for it")
        return None
    for index, word in enumerate(names):
        name, equals, device = word.partition("=")
        if name in consoles:
            raise ValueError(f"--console {name} is given twice")
        consoles[name] = {"device": device} if equals else {"index": index}
    flat = {} if consoles else dict(options)
    for word in files:
        name, equals, path = word.partition("=")
        if equals and name in consoles:
            consoles[name]["log"] = path
        elif consoles:
            first = next(iter(consoles.values()))
            if "log" in first:
                raise ValueError(
                    f"--console-file {word}: two files for one console (NAME=FILE names another)"
                )
            first["log"] = word
        elif "log" in flat:
            raise ValueError("--console-file is given twice, and there is one console")
        else:
            flat["log"] = word
    if consoles and options:
        for name, more in options.items():
            if name not in consoles or not isinstance(more, dict):
                raise ValueError(f"--plugin-option console.{name}: with --console it is console.NAME.OPTION")
            consoles[name].update(more)
    return {**consoles} if consoles else flat
