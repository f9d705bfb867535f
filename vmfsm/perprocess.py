"""What exists once in a process, and anew in a forked child."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")

_instances: dict[Callable[[], object], object] = {}
_locks = [threading.Lock()]

# A child has none of its parent's threads, and shares its parent's epoll instance: it must not touch what it
# inherited, not even by collecting it.
_of_parents: list[dict[Callable[[], object], object]] = []


def per_process(cls: Callable[[], T]) -> T:
    """The one `cls()` of this process, made at the first call. From any thread."""
    instance = _instances.get(cls)
    if instance is None:
        with _locks[0]:
            instance = _instances.get(cls)
            if instance is None:
                instance = _instances[cls] = cls()
    return cast(T, instance)


def existing(cls: Callable[[], T]) -> T | None:
    """The same, if there was a first call. Never waits."""
    return cast("T | None", _instances.get(cls))


def _forget_in_child() -> None:
    _of_parents.append(dict(_instances))
    _instances.clear()
    _locks[0] = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)
