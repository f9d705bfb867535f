"""Recordings of several machines on one axis."""

from collections.abc import Mapping, Sequence
from typing import Any

_PUT_RIGHT = 60.0
"""Seconds by which the clock of a host may have been, while it was up."""


def shifts(headers: Sequence[Mapping[str, Any]]) -> list[float]:
    """What is to be added to the times of each recording, to have them on the clock of the first one.

    Those of one host stay together, on its monotonic clock, wherever its wall clock puts them.
    """
    found: list[float] = []
    for number, header in enumerate(headers):
        same = next((n for n, other in enumerate(headers[:number]) if has_same(other, header)), None)
        found.append(_boot(header) - _boot(headers[0]) if same is None else found[same])
    return found


def has_same(header: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both have the monotonic clock of one host.

    Of different hosts, or where it was booted in between, only wall clocks can be compared.
    """
    is_same_host = _host(header) is not None and _host(header) == _host(other)
    return is_same_host and abs(_boot(other) - _boot(header)) < _PUT_RIGHT


def _boot(header: Mapping[str, Any]) -> float:
    """When the monotonic clock was 0, in seconds since 1970."""
    clocks = header["clocks"]
    return float(clocks["wall"] - clocks["monotonic"])


def _host(header: Mapping[str, Any]) -> str | None:
    host = header.get("host")
    name = host.get("name") if isinstance(host, Mapping) else None
    return name if isinstance(name, str) else None
