"""Bundles as tests look at them: each held to what is documented of all."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from vmfsm import printable, recording

PAGE = Path(__file__).parents[1] / "docs" / "bundle.md"
PATTERNS = [
    re.compile(re.escape(name).replace("NAME", ".+"))
    for name in re.findall(
        r"`([\w.-]+)`(?= \|)",
        PAGE.read_text(encoding="utf-8").partition("<!-- files: bundle -->")[2].partition("<!-- end -->")[0],
    )
]
"""What a file may be named, as the page has it."""
FIELDS = {"format", "version", "name", "made", "why", "seconds", "files", "missing"}
_MORE = (re.compile(r"recording\.jsonl\.\d{4}"), re.compile(r"screendump\.ppm"))
LIVE = {
    *("query-status.json", "query-cpus-fast.json", "registers.txt", "device-tree.txt"),
    *("query-block.json", "mtree.txt"),
}
"""What any QEMU that lives tells."""


class Seen:
    """One bundle, which is as all are to be."""

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        self.path = Path(path)
        self.told: Any = json.loads((self.path / "bundle.json").read_text())
        self.readme = (self.path / "README.txt").read_text()
        self.names = set(os.listdir(path))
        self._check()

    @property
    def missing(self) -> dict[str, str]:
        return {row["what"]: row["why"] for row in self.told["missing"]}

    def text(self, name: str) -> str:
        return (self.path / name).read_text()

    def _check(self) -> None:
        assert self.told.keys() == FIELDS
        assert (self.told["format"], self.told["version"]) == ("vmfsm-bundle", 1)
        assert self.told["seconds"] >= 0
        assert {row["file"] for row in self.told["files"]} | {"bundle.json"} == self.names
        for row in self.told["files"]:
            assert row["what"]
            assert row["file"] == "README.txt" or row["bytes"] == (self.path / row["file"]).stat().st_size
        for name in self.names:
            assert any(pattern.fullmatch(name) for pattern in (*PATTERNS, *_MORE)), name
            assert name in self.readme or name in {"README.txt", "bundle.json"}
        for what, why in self.missing.items():
            assert f"{what}: {why}" in self.readme
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in self.path.iterdir()} == {0o600}
        assert re.search("^CAUSE: .", self.readme, re.MULTILINE)
        assert printable(self.readme) == self.readme
        if "recording.jsonl" not in self.names:  # its disk was full
            assert any(what.startswith("the recording") for what in self.missing)
            return
        it = recording.read(self.path / "recording.jsonl")
        assert it.name == self.told["name"]
        assert it.snapshot()["name"] == self.told["name"]


def bundles(directory: Path) -> list[Seen]:
    """All that there are, the oldest first."""
    paths = directory.iterdir() if directory.exists() else ()
    return [Seen(path) for path in sorted(paths, key=lambda path: path.stat().st_ctime_ns)]


def the_bundle(directory: Path) -> Seen:
    (one,) = bundles(directory)
    return one
