"""How far a migration is."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Progress(NamedTuple):
    """What QEMU says of a migration (QMP reference, `MigrationInfo`). What it does not say is 0.

    Of a destination QEMU says no more than the status, and the error where it failed.
    """

    status: str
    """`none`, `setup`, `active`, `device`, `completed`, `failed`, `cancelling`, `cancelled`, …"""
    transferred: int = 0
    """Bytes sent."""
    remaining: int = 0
    """Bytes of RAM still to be sent."""
    total: int = 0
    """Bytes of RAM."""
    rate: float = 0.0
    """Bytes sent in a second."""
    dirty_rate: int = 0
    """Bytes of RAM that the guest changes in a second, as of the last pass over its RAM."""
    seconds: float = 0.0
    """Since it began; all of it, when it is over."""
    downtime: float = 0.0
    """Seconds that the guest stood still; before the end, what QEMU expects."""
    error: str = ""
    """Why it failed, in QEMU's words."""


def parse(info: Mapping[str, Any]) -> Progress:
    """Of the reply to `query-migrate`."""
    ram = info.get("ram", {})
    return Progress(
        status=info.get("status", "none"),
        transferred=ram.get("transferred", 0),
        remaining=ram.get("remaining", 0),
        total=ram.get("total", 0),
        rate=ram.get("mbps", 0.0) * 1e6 / 8,
        dirty_rate=ram.get("dirty-pages-rate", 0) * ram.get("page-size", 0),
        seconds=info.get("total-time", 0) / 1000,
        downtime=info.get("downtime", info.get("expected-downtime", 0)) / 1000,
        error=info.get("error-desc", ""),
    )
