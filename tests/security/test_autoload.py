"""Plugins of others can be left out, and then nothing of them is executed."""

from pathlib import Path

import pytest

from tests.test_discovery import Site

# It says that it was imported, and does worse.
HOSTILE = """
import os, sys
open(os.environ["MARKER"], "w").close()
sys.exit("gotcha")
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    site.install("hostile", "1", {"hostile": "hostile:Hostile"}, hostile=HOSTILE)
    site.install("broken", "1", {"broken": "broken:Broken"}, broken="1 / 0")
    site.install("usurper", "1", {"qmp": "hostile:Hostile"})  # by the name of a built-in one
    return site


LAUNCH = """
machine = make()
with machine:
    machine.launch()
    say(loaded(machine, "qmp", "hostile", "broken"))
"""
# As the conftest.py of somebody's tests does, after vmfsm was imported and has made a machine.
LATER = """
import os
os.environ["VMFSM_PLUGIN_AUTOLOAD"] = "0"
"""


@pytest.mark.parametrize("where", ["environment", "conftest"])
def test_nothing_of_theirs_is_executed(qemu: str, site: Site, tmp_path: Path, where: str) -> None:
    marker = tmp_path / "was-imported"
    env = {"VMFSM_PLUGIN_AUTOLOAD": "0"} if where == "environment" else {"VMFSM_PLUGIN_AUTOLOAD": "1"}
    script = LAUNCH if where == "environment" else LATER + LAUNCH
    assert site.run(script, MARKER=str(marker), **env) == ["QMP", None, None]
    assert not marker.exists()


def test_with_it_they_are(site: Site, tmp_path: Path) -> None:
    """So that the test above tests something."""
    marker = tmp_path / "was-imported"
    said = site.run('make(block=[*BUILT_IN, "broken"])', MARKER=str(marker), VMFSM_PLUGIN_AUTOLOAD="1")
    assert said["type"] == "PluginLoadError"
    assert not marker.exists(), "one that takes the name of another is an error before anything is imported"


@pytest.mark.parametrize("value", ["no", "off", "false", "2", " 0"])
def test_what_may_mean_off_is_refused(site: Site, tmp_path: Path, value: str) -> None:
    marker = tmp_path / "was-imported"
    said = site.run("make()", MARKER=str(marker), VMFSM_PLUGIN_AUTOLOAD=value)
    assert (said["type"], said["field"]) == ("ConfigError", "VMFSM_PLUGIN_AUTOLOAD")
    assert not marker.exists()
