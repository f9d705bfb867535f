"""Installed plugins: found by their entry points, in an interpreter where they have just been installed."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

THIRD_PARTY = Path(__file__).parent / "thirdparty"

# Says as JSON what the constructor came to, or what it raised; `machine` can be used by what follows.
PREAMBLE = """
import json, sys
from vmfsm import Machine, VMError
def make(**parameters):
    try:
        return Machine("qemu-system-x86_64", ["-M", "none", "-nodefaults"], **parameters)
    except VMError as error:
        said = {"type": type(error).__name__, "text": str(error), "cause": repr(error.__cause__)}
        for name in ("field", "plugin", "entry_point", "distribution"):
            said[name] = getattr(error, name, None)
        said["errors"] = [str(other) for other in error.errors]
        print(json.dumps(said))
        sys.exit()
def loaded(machine, *names):
    found = []
    for name in names:
        try:
            found.append(type(machine.plugin(name)).__name__)
        except VMError:
            found.append(None)
    return found
def say(value):
    print(json.dumps(value))
BUILT_IN = ["logs", "fdpass", "console", "qmp", "migration", "snapshots", "verdicts"]
"""


class Site:
    """A directory of installed distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def install(self, name: str, version: str, entry_points: Mapping[str, str], **modules: str) -> None:
        for module, source in modules.items():
            (self.path / f"{module}.py").write_text(source)
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{key} = {value}\n" for key, value in entry_points.items()]
        (info / "entry_points.txt").write_text("[vmfsm.plugins]\n" + "".join(lines))

    def install_third_party(self) -> None:
        project = tomllib.loads((THIRD_PARTY / "pyproject.toml").read_text())["project"]
        source = (THIRD_PARTY / "vmfsm_greeter.py").read_text()
        self.install(
            project["name"],
            project["version"],
            project["entry-points"]["vmfsm.plugins"],
            vmfsm_greeter=source,
        )

    def run(self, script: str, **env: str) -> Any:
        """What the script said."""
        path = os.pathsep.join(filter(None, [str(self.path), os.environ.get("PYTHONPATH")]))
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", PREAMBLE + script],
            env={**os.environ, **env, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        return json.loads(ran.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_built_in_plugins_are_found_as_entry_points() -> None:
    found = {entry.name: entry for entry in metadata.entry_points(group="vmfsm.plugins")}
    assert {"logs", "console", "qmp"} <= found.keys()
    for entry in found.values():
        assert entry.dist is not None
        if entry.dist.name == "vmfsm":
            assert entry.value.startswith("vmfsm_plugins.")


def test_a_third_partys_is_found_in_the_same_way_and_works(site: Site) -> None:
    site.install_third_party()
    said = site.run("""
machine = make(block=BUILT_IN, options={"greeter": {"greeting": "good, day"}})
greeter = machine.plugin("greeter")
assert greeter.machine is machine
with machine:
    machine.launch()
    say([type(greeter).__module__, machine.command])
""")
    assert said[0] == "vmfsm_greeter"
    assert said[1] == [
        *("qemu-system-x86_64", "-display", "none", "-name", "guest=good,, day"),
        *("-M", "none", "-nodefaults"),
    ]


def test_every_machine_has_objects_of_its_own(site: Site) -> None:
    site.install_third_party()
    assert site.run("""
one, other = (make(block=BUILT_IN).plugin("greeter") for _ in range(2))
say([one is other, type(one) is type(other)])
""") == [False, True]


def test_blocked(site: Site) -> None:
    site.install_third_party()
    assert site.run('say(loaded(make(block=[*BUILT_IN, "greeter"]), "greeter"))') == [None]


def test_a_blocked_one_is_not_even_imported(site: Site) -> None:
    site.install("broken", "1", {"broken": "broken:Broken"}, broken="1 / 0")
    assert site.run('say(loaded(make(block=[*BUILT_IN, "broken"]), "broken"))') == [None]


@pytest.mark.parametrize(("autoload", "loaded"), [("0", None), ("1", "Greeter"), ("", "Greeter")])
def test_autoload(site: Site, autoload: str, loaded: str | None) -> None:
    site.install_third_party()
    found = site.run('say(loaded(make(block=BUILT_IN), "greeter"))', VMFSM_PLUGIN_AUTOLOAD=autoload)
    assert found == [loaded]


def test_without_autoload_the_built_in_ones_stay(site: Site) -> None:
    site.install_third_party()
    said = site.run(
        """
from vmfsm.plugins import installed
say(sorted(installed()))
""",
        VMFSM_PLUGIN_AUTOLOAD="0",
    )
    assert {"logs", "console", "qmp"} <= set(said)
    assert "greeter" not in said


def test_without_autoload_a_given_one_is_used(site: Site) -> None:
    site.install_third_party()
    found = site.run(
        """
from vmfsm_greeter import Greeter
say(loaded(make(block=BUILT_IN, plugins=[Greeter()]), "greeter"))
""",
        VMFSM_PLUGIN_AUTOLOAD="0",
    )
    assert found == ["Greeter"]


def test_a_given_one_replaces_the_installed_one(site: Site) -> None:
    site.install_third_party()
    assert site.run("""
class Mine:
    name = "greeter"
say(loaded(make(block=BUILT_IN, plugins=[Mine()]), "greeter"))
""") == ["Mine"]


def test_a_given_one_replaces_a_built_in_one(site: Site) -> None:
    assert site.run("""
class Mine:
    name = "qmp"
say(loaded(make(block=["logs", "fdpass", "console"], plugins=[Mine()]), "qmp", "console"))
""") == ["Mine", None]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemError", "SystemError"),
        ("Other = 1", "AttributeError: module 'bad' has no attribute 'Bad'"),
        ("def Bad(): pass", "must be a class"),
        ("class Bad: name = 'good'", "calls itself 'good'"),
    ],
)
def test_one_that_cannot_be_loaded(site: Site, source: str, why: str) -> None:
    site.install("its-maker", "4.5", {"bad": "bad:Bad"}, bad=source)
    said = site.run("make(block=BUILT_IN)")
    assert said["type"] == "PluginLoadError"
    assert said["plugin"] == "bad"
    assert said["entry_point"] == "bad = bad:Bad"
    assert said["distribution"] == "its-maker 4.5"
    for part in (why, "'bad'", "bad:Bad", "its-maker 4.5"):
        assert part in said["text"]
    assert said["errors"] == []


def test_all_that_cannot_be_loaded_are_told(site: Site) -> None:
    site.install("one", "1", {"bad1": "bad1:Bad"}, bad1="1 / 0")
    site.install("two", "2", {"bad2": "bad2:Bad"}, bad2="[][0]")
    said = site.run("make(block=BUILT_IN)")
    assert (said["plugin"], said["distribution"]) == ("bad1", "one 1")
    assert "ZeroDivisionError" in said["cause"]
    (other,) = said["errors"]
    assert "'bad2'" in other
    assert "two 2" in other


def test_two_distributions_with_one_name(site: Site) -> None:
    site.install_third_party()
    site.install("rival", "9", {"greeter": "rival:Greeter"}, rival="class Greeter: pass")
    said = site.run("make(block=BUILT_IN)")
    assert said["type"] == "PluginLoadError"
    assert said["plugin"] == "greeter"
    for part in ("'greeter'", "rival 9", "vmfsm-greeter 1.2.3"):
        assert part in said["text"]


def test_one_distribution_seen_twice_is_one(site: Site) -> None:
    """As happens where a directory is on the path twice, or an editable install lies over a wheel."""
    site.install_third_party()
    again = site.path.parent / "again"
    again.symlink_to(site.path)
    script = """
from importlib.metadata import MetadataPathFinder, DistributionFinder
assert len(list(MetadataPathFinder.find_distributions(DistributionFinder.Context(name="vmfsm-greeter")))) == 2
say(loaded(make(block=BUILT_IN), "greeter"))
"""
    assert site.run(f"sys.path.insert(0, {str(again)!r})\n{script}") == ["Greeter"]


OPTIONS = [
    ({"times": "3"}, "options['greeter']['times']", "must be int, not '3'"),
    ({"times": True}, "options['greeter']['times']", "must be int, not True"),
    ({"times": None}, "options['greeter']['times']", "must be int, not None"),
    ({"greeting": 5}, "options['greeter']['greeting']", "must be str, not 5"),
    ({"volume": 11}, "options['greeter']['volume']", "it has: greeting, times"),
]


@pytest.mark.parametrize(("options", "field", "why"), OPTIONS)
def test_wrong_options(site: Site, options: dict[str, object], field: str, why: str) -> None:
    site.install_third_party()
    said = site.run(f"make(block=BUILT_IN, options={{'greeter': {options!r}}})")
    assert (said["type"], said["field"]) == ("ConfigError", field)
    assert "'greeter'" in said["text"]
    assert why in said["text"]


def test_options_for_a_blocked_one(site: Site) -> None:
    site.install_third_party()
    said = site.run('make(block=[*BUILT_IN, "greeter"], options={"greeter": {}})')
    assert (said["type"], said["field"]) == ("ConfigError", "options['greeter']")
    assert "is blocked" in said["text"]


def test_options_for_one_that_autoload_leaves_out(site: Site) -> None:
    site.install_third_party()
    said = site.run('make(block=BUILT_IN, options={"greeter": {}})', VMFSM_PLUGIN_AUTOLOAD="0")
    assert (said["type"], said["field"]) == ("ConfigError", "options['greeter']")


TYPES = """
import typing
class Typed:
    def __init__(self, *, path: "str | None" = None, seconds: float = 1, mode: typing.Literal["r", "w"] = "r",
                 names: "typing.Sequence[str]" = (), any: object = None, on: bool = True, free=None): pass
"""


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"path": None}, None),
        ({"path": "x"}, None),
        ({"path": b"x"}, "path"),
        ({"seconds": 3}, None),
        ({"seconds": 0.5}, None),
        ({"seconds": "1"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"mode": "w"}, None),
        ({"mode": "x"}, "mode"),
        ({"names": ["a"]}, None),
        ({"names": 5}, "names"),
        ({"on": False}, None),
        ({"on": 1}, "on"),
        ({"any": 1, "free": 2}, None),
    ],
)
def test_options_are_checked_by_annotation(site: Site, options: dict[str, object], field: str | None) -> None:
    site.install("typed", "1", {"typed": "typed_plugin:Typed"}, typed_plugin=TYPES)
    said = site.run(f"say(loaded(make(block=BUILT_IN, options={{'typed': {options!r}}}), 'typed'))")
    if field is None:
        assert said == ["Typed"]
    else:
        assert (said["type"], said["field"]) == ("ConfigError", f"options['typed'][{field!r}]")
        assert repr(options[field]) in said["text"]


def test_a_plugin_that_refuses_its_options(site: Site) -> None:
    source = (
        "class Picky:\n def __init__(self, *, n: int = 1):\n  if n < 1: raise ValueError('n is too small')"
    )
    site.install("picky", "1", {"picky": "picky:Picky"}, picky=source)
    said = site.run("make(block=BUILT_IN, options={'picky': {'n': 0}})")
    assert (said["type"], said["field"]) == ("ConfigError", "options['picky']")
    for part in ("'picky'", "ValueError: n is too small"):
        assert part in said["text"]
    assert "ValueError" in said["cause"]
