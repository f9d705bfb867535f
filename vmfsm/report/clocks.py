"""Recordings of several machines on one axis."""

from collections.abc import Mapping
from typing import Any

_PUT_RIGHT = 60.0
"""Seconds by which the clock of a host may have been, while it was up."""


def shift(header: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """What is to be added to times of the other recording, to have them on the clock of the first.

    Nothing on the same host, whose monotonic clock both have. Of others, or where it was booted in between,
    only wall clocks can be compared.
    """
    difference = _boot(other) - _boot(header)
    is_same_host = _host(header) is not None and _host(header) == _host(other)
    return 0.0 if is_same_host and abs(difference) < _PUT_RIGHT else difference


def _boot(header: Mapping[str, Any]) -> float:
    """When the monotonic clock was 0, in seconds since 1970."""
    clocks = header["clocks"]
    return float(clocks["wall"] - clocks["monotonic"])


def _host(header: Mapping[str, Any]) -> str | None:
    host = header.get("host")
    name = host.get("name") if isinstance(host, Mapping) else None
    return name if isinstance(name, str) else None
