"""The options of the verdicts, checked."""

import difflib
import os
from collections.abc import Collection, Mapping
from typing import Any, cast

from vmfsm import ACTIONS, Action, ConfigError, Deadline, check_path

from .patterns import Pattern
from .rules import CONSOLE, OUTPUT, REPORTED, RULES, Rule

_SOURCES = {
    "console": frozenset({CONSOLE}),
    "output": frozenset({OUTPUT}),
    "both": frozenset({CONSOLE, OUTPUT}),
}
_CHOICES = tuple(action for action in ACTIONS if action != "expected")


def check_action(action: object, field: str) -> Action:
    """:raises ConfigError: for what is no action that can be chosen."""
    if not isinstance(action, str) or action not in _CHOICES:
        raise ConfigError(f"{field} must be one of {', '.join(_CHOICES)}, not {action!r}", field=field)
    return cast(Action, action)


def check_rules(given: object, default: Action | None) -> dict[str, Rule]:
    """The built-in rules, changed and added to.

    :param default: the action of all rules that do not say their own.
    :raises ConfigError: naming the rule, and what of it.
    """
    field = "options['verdicts']['rules']"
    if not isinstance(given, Mapping) or not all(isinstance(kind, str) and kind for kind in given):
        raise ConfigError(f"{field} must be a mapping by kind, not {given!r}", field=field)
    rules = RULES if default is None else {k: rule._replace(action=default) for k, rule in RULES.items()}
    new = Rule(sources=_SOURCES["console"], action=default or "wake")
    changed = {
        kind: _change(rules.get(kind, new), rule, f"{field}[{kind!r}]") for kind, rule in given.items()
    }
    for kind, rule in given.items():
        if not isinstance(rule, str) and not (rule and "pattern" in rule):
            check_kind(kind, RULES, f"{field}[{kind!r}]")
    return {**rules, **changed}


def check_kind(kind: str, rules: Collection[str], field: str) -> None:
    """One that has no pattern may be what other plugins report; or a slip of the pen.

    :raises ConfigError: for what is none of `rules` or the built-in ones, but spelt nearly like one.
    """
    known = (*rules, *REPORTED)
    if kind not in known and (close := difflib.get_close_matches(kind, known, 1, cutoff=0.8)):
        raise ConfigError(f"{field}: there is no kind {kind!r}; did you mean {close[0]!r}?", field=field)


def _change(rule: Rule, given: object, field: str) -> Rule:
    match given:
        case None:
            return rule._replace(patterns=(), action="none")
        case str():
            return rule._replace(patterns=_patterns(given, field), apart=0, unless=())
        case Mapping():
            pass
        case _:
            raise ConfigError(f"{field} must be a pattern, a mapping or None, not {given!r}", field=field)
    for key, value in given.items():
        where = f"{field}[{key!r}]"
        match key:
            case "pattern":
                rule = rule._replace(patterns=_patterns(value, where), apart=0, unless=())
            case "source":
                if not isinstance(value, str) or value not in _SOURCES:
                    raise ConfigError(
                        f"{where} must be one of {', '.join(_SOURCES)}, not {value!r}", field=where
                    )
                rule = rule._replace(sources=_SOURCES[value])
            case "action":
                rule = rule._replace(action=check_action(value, where))
            case "dump":
                if not isinstance(value, bool):
                    raise ConfigError(f"{where} must be True or False, not {value!r}", field=where)
                rule = rule._replace(dump=value)
            case _:
                raise ConfigError(
                    f"{field} has no {key!r} (a rule has: pattern, source, action, dump)", field=where
                )
    return rule


def _patterns(given: Any, field: str) -> tuple[str, ...]:
    patterns = (given,) if isinstance(given, str) else given
    if not isinstance(patterns, tuple | list) or not all(isinstance(text, str) for text in patterns):
        raise ConfigError(
            f"{field}: a pattern must be a str, or several in a list, not {given!r}", field=field
        )
    for text in patterns:
        try:
            Pattern.compile(text)
        except ValueError as error:
            raise ConfigError(f"{field}: {text!r} is no pattern: {error}", field=field) from None
    return tuple(patterns)


def check_dump(path: "str | os.PathLike[str] | None") -> str | None:
    """:raises ConfigError: for what is no path."""
    return None if path is None else os.path.abspath(check_path(path, field="options['verdicts']['dump']"))


def check_dump_timeout(seconds: float) -> float:
    """:raises ConfigError: for what is no number of seconds."""
    try:
        Deadline(seconds)
    except ConfigError as error:
        raise ConfigError(f"dump_{error}", field="options['verdicts']['dump_timeout']") from None
    return seconds
