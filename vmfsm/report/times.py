"""How a report says times, as `page/times.js` does."""

from collections.abc import Mapping
from typing import Any


def duration(seconds: float | None) -> str:
    """How long: `120 µs`, `12.3 ms`, `1.23 s`, `42.0 s`, `2 min 05 s`, `3 h 07 min`."""
    if seconds is None:
        return "no limit"
    size = abs(seconds)
    sign = "-" if seconds < 0 else ""
    if size < 0.0009995:
        return f"{seconds * 1e6:.0f} µs"
    if size < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if size < 99.95:
        return f"{seconds:.2f} s" if size < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(size), 60)
    if size < 5970:
        return f"{sign}{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes:02d} min"


def moment(seconds: float | None) -> str:
    """When, after the beginning: `12.345 s`, `2:03.456`, `1:02:03.456`."""
    if seconds is None:
        return "-"
    if abs(seconds) < 120:
        return f"{seconds:.3f} s"
    sign = "-" if seconds < 0 else ""
    milliseconds = round(abs(seconds) * 1e3)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    rest = f"{milliseconds / 1e3:06.3f}"
    return f"{sign}{hours}:{minutes:02d}:{rest}" if hours else f"{sign}{minutes}:{rest}"


def spent(item: Mapping[str, Any], end: float) -> str:
    """How long an item took, or that it had not ended when its machine's recording did, at `end`."""
    if "end" not in item:
        return "-"
    if item["end"] is None:
        return f"{duration(max(end - item['t'], 0))}, not ended"
    return duration(item["end"] - item["t"])
