"""What the documentation says is true: its examples run, and it leaves nothing out.

A Python block that imports vmfsm is run as it is, any other one after `PREAMBLE`, each by an interpreter of
its own. A comment before a block says what else it is; a block of another language without one is an error:

    <!-- the same as FILE -->                           the text of that file
    <!-- file: NAME -->                                 a file of the example plugin
    <!-- with the plugin above installed -->            run where these files are an installed distribution
    <!-- the end of what the block above prints -->     that block fails, with this
    <!-- with a kernel in VMFSM_TEST_KERNEL -->         run where that names a Linux kernel
    <!-- with virtiofsd, a kernel in VMFSM_TEST_KERNEL and a shell in VMFSM_TEST_INITRAMFS -->
    <!-- with swtpm -->                                 run where there is such a program
    <!-- conftest.py -->                                one for the next block
    <!-- tests beside the conftest.py above -->         run by pytest
    <!-- NAME, looked at by the session below -->       run by tests/cli/test_page.py, with the next block
    <!-- a session beside the program above -->         command lines, and what they print
    <!-- a session of its own -->                       the same, by itself
    <!-- a session with a kernel in VMFSM_TEST_KERNEL and a shell in VMFSM_TEST_INITRAMFS -->
"""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from vmfsm_plugins.bundle import Bundles
from vmfsm_plugins.console import Console, Consoles
from vmfsm_plugins.console.api import AsyncConsole
from vmfsm_plugins.fdpass import FDPass
from vmfsm_plugins.fdpass.plugin import AsyncFDs
from vmfsm_plugins.logs import Logs
from vmfsm_plugins.migration import AsyncMigration, Migration, MigrationError, Progress
from vmfsm_plugins.qmp import QMP
from vmfsm_plugins.qmp.aio import AsyncQMP
from vmfsm_plugins.recorder import Recorder
from vmfsm_plugins.snapshots import AsyncSnapshots, Snapshot, Snapshots
from vmfsm_plugins.verdicts import Expectation, Verdicts
from vmfsm_plugins.verdicts.rules import RULES

import vmfsm
from tests.waiting import LIMIT
from vmfsm import compat, diagnosis, errors, hooks, qemu_img, recording, testing
from vmfsm.compat import errors as compat_errors
from vmfsm.compat import qemu_utils
from vmfsm.compat.monitor import Monitor
from vmfsm.testing import pytest_leakcheck

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PREAMBLE = "import json\nfrom vmfsm import *\nfrom vmfsm.testing import GUEST_ARGS\n\n"

SAME = "the same as "
FILE = "file: "
INSTALLED = "with the plugin above installed"
PRINTED = "the end of what the block above prints"
KERNEL = "with a kernel in VMFSM_TEST_KERNEL"
VIRTIOFSD = "with virtiofsd, a kernel in VMFSM_TEST_KERNEL and a shell in VMFSM_TEST_INITRAMFS"
SWTPM = "with swtpm"
CONFTEST = "conftest.py"
TESTS = "tests beside the conftest.py above"
PROGRAM = ", looked at by the session below"
SESSION = "a session beside the program above"
OWN_SESSION = "a session of its own"
LINUX_SESSION = "a session with a kernel in VMFSM_TEST_KERNEL and a shell in VMFSM_TEST_INITRAMFS"


class Block(NamedTuple):
    page: Path
    line: int
    comment: str
    language: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(
        r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    ):
        line = text.count("\n", 0, found.start(2)) + 1
        yield Block(page, line, found[1] or "", found[2], found[3])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
TO_RUN = [block for block in PYTHON if not block.comment]


def run(block: Block, directory: Path, *path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    is_whole = re.search(r"^(from|import) vmfsm\b", block.text, re.MULTILINE)
    script = directory / "example.py"
    script.write_text(block.text if is_whole else PREAMBLE + block.text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, script],
        cwd=directory,
        env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(map(str, [*path, *sys.path]))},
        check=False,
        capture_output=True,
        text=True,
        timeout=6 * LIMIT,
    )


def after(block: Block) -> Block | None:
    following = BLOCKS[BLOCKS.index(block) + 1 :]
    return following[0] if following and following[0].page == block.page else None


# -- examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", TO_RUN, ids=[block.id for block in TO_RUN])
def test_example(block: Block, qemu: str, tmp_path: Path) -> None:
    result = run(block, tmp_path)
    output = after(block)
    if output is not None and output.comment == PRINTED:
        assert result.returncode == 1
        # Whether QEMU has ended just before a call or just after its beginning is not the example's.
        said = result.stderr.replace("the machine had ended before", "the machine ended during")
        assert said.endswith(output.text), said
    else:
        told = r"^vmfsm: .* is held .*\n(  .*\n)*|^vmfsm: .*: bundle: .*\n"
        said = re.sub(told, "", result.stderr, flags=re.MULTILINE)
        assert (result.returncode, said) == (0, "")


def test_the_example_plugin(qemu: str, tmp_path: Path) -> None:
    files = {
        block.comment.removeprefix(FILE): block.text for block in BLOCKS if block.comment.startswith(FILE)
    }
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    site = tmp_path / "site"
    site.mkdir()
    for name, text in files.items():
        (site / name).write_text(text, encoding="utf-8")
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )
    blocks = [block for block in PYTHON if block.comment == INSTALLED]
    assert blocks
    for block in blocks:
        result = run(block, tmp_path, site)
        assert (result.returncode, result.stderr) == (0, ""), block.id


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.id) for block in PYTHON if block.comment == KERNEL]
)
def test_example_with_linux(block: Block, qemu: str, kernel: Path, tmp_path: Path) -> None:
    result = run(block, tmp_path, VMFSM_TEST_KERNEL=str(kernel))
    assert (result.returncode, result.stderr) == (0, "")
    assert "Kernel panic" in result.stdout


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.id) for block in PYTHON if block.comment == VIRTIOFSD]
)
def test_example_with_virtiofsd(
    block: Block, qemu: str, virtiofsd: None, kernel: Path, initramfs: Path, tmp_path: Path
) -> None:
    result = run(block, tmp_path, VMFSM_TEST_KERNEL=str(kernel), VMFSM_TEST_INITRAMFS=str(initramfs))
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.id) for block in PYTHON if block.comment == SWTPM]
)
def test_example_with_swtpm(block: Block, qemu: str, swtpm: None, tmp_path: Path) -> None:
    result = run(block, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.id) for block in PYTHON if block.comment == CONFTEST]
)
def test_example_of_a_fixture(block: Block, qemu: str, pytester: pytest.Pytester) -> None:
    tests = after(block)
    assert tests is not None
    assert tests.comment == TESTS
    pytester.makeconftest(block.text)
    pytester.makepyfile(tests.text)
    result = pytester.runpytest_subprocess("-o", "usefixtures=leakcheck")
    result.assert_outcomes(passed=tests.text.count("def test_"))


def test_the_hook_tells_a_machine_of_a_plain_assert(
    qemu: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hook,) = [block for block in PYTHON if block.comment == CONFTEST and block.page.name == "failures.md"]
    monkeypatch.setenv("VMFSM_RECORD", str(pytester.path / "recordings"))
    pytester.makeconftest(hook.text)
    pytester.makepyfile("def test_it(vm):\n    assert vm is None, 'no login'\n")
    pytester.runpytest_subprocess().assert_outcomes(failed=1)
    (path,) = (pytester.path / "recordings").iterdir()
    found = diagnosis.diagnose(recording.read(path))
    assert (found.outcome, found.kind) == ("failed", "test-failed")
    assert "no login" in found.cause


def test_first_test(qemu: str, tmp_path: Path) -> None:
    shown = [block for block in PYTHON if block.comment.startswith(SAME)]
    for block in shown:
        file = ROOT / block.comment.removeprefix(SAME)
        assert block.text == file.read_text(encoding="utf-8"), f"{block.id} is not {file.relative_to(ROOT)}"
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, file],
            check=False,
            capture_output=True,
            text=True,
            timeout=3 * LIMIT,
        )
        assert result.returncode == 0, result.stdout
        assert re.search(r"^3 passed", result.stdout, re.MULTILINE), result.stdout
    assert [block.page.name for block in shown] == ["README.md"]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.id for block in BLOCKS])
def test_no_block_is_only_shown(block: Block) -> None:
    if block.language == "python":
        known = {"", INSTALLED, KERNEL, SWTPM, VIRTIOFSD, CONFTEST, TESTS}
        is_named = block.comment.startswith((SAME, FILE)) or block.comment.endswith(PROGRAM)
        assert block.comment in known or is_named
        compile(block.text, block.id, "exec")
    elif block.language == "mermaid":
        assert block.comment.startswith("generated: ")
    else:
        assert block.comment in {PRINTED, SESSION, OWN_SESSION, LINUX_SESSION} or block.comment.startswith(
            FILE
        )


# -- nothing is left out ------------------------------------------------------------------------------------


def text_of(*names: str) -> str:
    return "\n".join((DOCS / name).read_text(encoding="utf-8") for name in names)


def is_mentioned(name: str) -> bool:
    """Whether it is somewhere between backquotes."""
    everything = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", everything) is not None


def exception_names() -> set[str]:
    return {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.VMError)
    }


@pytest.mark.parametrize("hook", sorted(hooks.ALL_HOOKS))
def test_each_hook_has_a_heading_with_its_signature(hook: str) -> None:
    names = ", ".join(inspect.signature(getattr(hooks, hook)).parameters)
    assert f"\n### `{hook}({names})`\n" in text_of("hooks.md")


@pytest.mark.parametrize("name", vmfsm.__all__)
def test_each_public_name_is_mentioned(name: str) -> None:
    assert is_mentioned(name)


OF_PLUGINS = {"MigrationError", "QMPCommandError", "QMPConnectionError", "SnapshotError"}


@pytest.mark.parametrize("name", sorted({*exception_names(), *OF_PLUGINS}))
def test_each_exception_is_in_the_tree(name: str) -> None:
    assert re.search(rf"^\| .*`{name}` \|", text_of("errors.md"), re.MULTILINE)


@pytest.mark.parametrize("reason", list(vmfsm.Reason))
def test_each_reason_is_in_the_table_of_endings(reason: vmfsm.Reason) -> None:
    assert f"| `{reason.name}` |" in text_of("endings.md")


@pytest.mark.parametrize("state", list(vmfsm.State))
def test_each_state_has_its_promise(state: vmfsm.State) -> None:
    assert f"\n| `{state.value}` | " in text_of("lifecycle.md")


def members(cls: type) -> list[str]:
    return [name for name in vars(cls) if not name.startswith("_")]


@pytest.mark.parametrize("name", members(vmfsm.Machine))
def test_each_member_of_a_machine_is_mentioned(name: str) -> None:
    assert is_mentioned(name)


@pytest.mark.parametrize(
    ("page", "offered"),
    [
        ("qmp.md", QMP),
        ("console.md", Console),
        ("console.md", Consoles),
        ("logs.md", Logs),
        ("snapshots.md", Snapshots),
        ("snapshots.md", Snapshot),
        ("fds.md", FDPass),
        ("migration.md", Migration),
        ("bundle.md", Bundles),
        ("recorder.md", Recorder),
        ("recorder.md", recording.Recording),
        ("verdicts.md", Verdicts),
        ("verdicts.md", Expectation),
    ],
)
def test_each_option_and_member_of_a_plugin_is_on_its_page(page: str, offered: type) -> None:
    # The last two are for the plugin, not for users.
    known = {*hooks.ALL_HOOKS, "name", "before", "after", "consoles", "open", "last_lines", "hear"}
    names = {name for name in members(offered) if name not in known}
    if offered not in {Console, Expectation, recording.Recording}:
        options = inspect.signature(offered).parameters.values()
        names |= {option.name for option in options if option.kind is option.KEYWORD_ONLY}
    text = text_of(page)
    missing = [name for name in sorted(names) if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)]
    assert missing == []


@pytest.mark.parametrize("source", ["console", "output"])
def test_each_rule_is_in_the_table_of_verdicts(source: str) -> None:
    table = text_of("verdicts.md").partition(f"<!-- rules: {source} -->")[2].partition("<!-- end -->")[0]
    listed = {}
    for kind, patterns in re.findall(r"^\| `([\w-]+)` \| (.*?) \|", table, re.MULTILINE):
        found = re.findall(r"``(.*?)``(?!`)|`(.*?)`", patterns)
        listed[kind] = tuple((one or other).replace("\\n", "\n") for one, other in found)
    assert listed == {kind: rule.patterns for kind, rule in RULES.items() if source in rule.sources}


def test_all_that_the_image_helper_takes_and_tells_is_on_its_page() -> None:
    names = {*qemu_img.__all__, *qemu_img.ImageInfo._fields}
    for function in (qemu_img.create, qemu_img.overlay, qemu_img.info):
        names |= parameters(function)
    text = text_of("qemu-img.md")
    missing = [name for name in sorted(names) if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)]
    assert missing == []


@pytest.mark.parametrize("told", [MigrationError, Progress])
def test_each_field_of_what_migrations_tell_is_listed(told: type) -> None:
    for field in told.__annotations__:
        assert re.search(rf"^\| (`\w+`, )*`{field}`(, `\w+`)* \|", text_of("migration.md"), re.MULTILINE), (
            field
        )


def test_each_command_of_the_tiny_guest_is_listed() -> None:
    source = testing.GUEST.with_suffix(".S").read_text(encoding="utf-8")
    commands = {command.strip() for command in re.findall(r'^ +command "([a-z]+ ?)"', source, re.MULTILINE)}
    assert {"ping", "exit", "flood"} <= commands
    assert set(re.findall(r"^\| `([a-z]+)\b.*` \|", text_of("guest.md"), re.MULTILINE)) == commands
    assert set(re.findall(r"^    ([a-z]+) .*  ", testing.__doc__ or "", re.MULTILINE)) == commands


@pytest.mark.parametrize("offered", [vmfsm.Capabilities, vmfsm.MachineType])
def test_each_capability_is_on_its_page(offered: type) -> None:
    text = text_of("capabilities.md")
    assert [name for name in members(offered) if f"`{name}`" not in text] == []


def test_all_that_the_check_for_leaks_takes_and_tells_is_on_its_page() -> None:
    names = {"Leak", "leaks", "leakcheck", *pytest_leakcheck.__all__, *parameters(testing.leakcheck.__init__)}
    text = text_of("leakcheck.md")
    missing = [name for name in sorted(names) if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)]
    assert missing == []


@pytest.mark.parametrize("name", testing.__all__)
def test_each_public_name_for_tests_is_mentioned(name: str) -> None:
    assert is_mentioned(name)


def test_each_point_member_and_action_of_the_fake_qemu_is_listed() -> None:
    text = text_of("fake-qemu.md")
    points = parameters(testing.FakeQEMU.__init__)
    listed = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert listed | {"reads_console", "version"} == points
    for name in (*points, *members(testing.FakeQEMU)):
        assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text), name
    actions = dict(re.findall(r"^\| `(\w+)\((.*)\)` \|", text, re.MULTILINE))
    assert {*actions, "Action"} == set(testing.actions.__all__)
    for name, given in actions.items():
        assert set(re.findall(r"(\w+)(?=[=,]|$)", re.sub(r"=[^,]*", "=", given))) == parameters(
            getattr(testing.actions, name)
        )


def parameters(function: object) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}  # type: ignore[arg-type]


def test_each_parameter_of_a_machine_is_in_its_table() -> None:
    table = text_of("lifecycle.md").partition("## Making a machine")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == parameters(vmfsm.Machine.__init__)


def test_each_twin_is_listed() -> None:
    table = text_of("lifecycle.md").partition("### Coroutines")[2].partition("\n## ")[0]
    for twins, name in (
        (AsyncQMP, "qmp"),
        (AsyncFDs, "fds"),
        (AsyncConsole, "console"),
        (AsyncSnapshots, "snapshots"),
        (AsyncMigration, "migration"),
    ):
        row = re.search(rf"^\| `machine\.{name}\.aio` \| (.*) \|$", table, re.MULTILINE)
        assert row is not None
        assert set(re.findall(r"`(\w+)`", row[1])) == set(members(twins))


# -- the drop-in --------------------------------------------------------------------------------------------


def section_of(page: str, heading: str) -> str:
    return text_of(page).partition(f"# {heading}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize(
    ("heading", "offered"),
    [
        ("Parameters of QEMUMachine", compat.QEMUMachine),
        ("ConsoleSocket", compat.ConsoleSocket),
        ("qtest", compat.QEMUQtestMachine),
    ],
)
def test_each_parameter_of_the_drop_in_is_in_its_table(heading: str, offered: type) -> None:
    rows = re.findall(r"^\| (`.*?`) \|", section_of("compat.md", heading), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert parameters(offered) == listed


@pytest.mark.parametrize(
    "offered", [compat.QEMUMachine, compat.QEMUQtestMachine, compat.QEMUQtestProtocol, Monitor]
)
def test_each_member_of_the_drop_in_is_on_its_page(offered: type) -> None:
    names = {name for cls in offered.__mro__ for name in members(cls)} - IN_THE_DROP_IN
    text = text_of("compat.md")
    missing = [name for name in sorted(names) if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)]
    assert missing == []


# For other parts of the drop-in, not for users.
IN_THE_DROP_IN = {"by", "event", "value_of", "plugin", "quit_seen", "transport", "qemu_has_ended"}


@pytest.mark.parametrize(
    "method", ["add_fd", "set_console", "shutdown", "qmp", "cmd", "event_wait", "events_wait"]
)
def test_each_signature_of_the_drop_in_is_as_documented(method: str) -> None:
    words = re.search(rf"^\| `{method}\((.*?)\)` \|", text_of("compat.md"), re.MULTILINE)
    assert words is not None
    signature = inspect.signature(getattr(compat.QEMUMachine, method))
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    shown = str(inspect.Signature(bare[1:])).replace("'", '"')
    assert shown == f"({words[1]})"


def test_each_exception_of_the_drop_in_is_in_its_table() -> None:
    own = compat_errors.__name__
    defined = {name for name, kind in vars(compat_errors).items() if getattr(kind, "__module__", "") == own}
    listed = re.findall(r"^\| `(\w+)` \|", section_of("compat.md", "Exceptions"), re.MULTILINE)
    assert sorted(listed) == sorted(name for name in defined if not name.startswith("_"))


@pytest.mark.parametrize("name", [*compat.__all__, *qemu_utils.__all__])
def test_each_public_name_of_the_drop_in_is_on_its_page(name: str) -> None:
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text_of("compat.md"))


def test_each_defect_of_the_old_machine_has_its_row() -> None:
    rows = [
        [cell.strip() for cell in line.split(" | ")]
        for line in text_of("compat-defects.md").splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    assert [int(row[0].strip("| ")) for row in rows] == list(range(1, 43))
    for row in rows:
        assert len(row) == 5, row
        shown_by = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row[-1])
        assert shown_by, row
        for file, test in shown_by:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), (file, test)


def record_kinds() -> set[str]:
    """The kinds of all records that the code makes, as far as they are written in place."""
    kinds: set[str] = set()
    for path in (*ROOT.glob("vmfsm/**/*.py"), *ROOT.glob("plugins/**/*.py")):
        source = path.read_text(encoding="utf-8")
        kinds |= set(re.findall(r'\b_?record[(,]\s*"([\w-]+)"', source))
        kinds |= set(re.findall(r'_marks\.mark\(\s*"([\w-]+)"', source))
        kinds |= set(re.findall(r'\bRecord\("([\w-]+)"', source))
    return kinds


def test_each_kind_of_record_is_listed() -> None:
    kinds = record_kinds()
    assert {"transition", "hook", "dropped", "console", "output", "qmp-command", "log-file"} <= kinds
    listed = re.findall(r"^\| `([\w-]+)` \|", text_of("timeline.md"), re.MULTILINE)
    assert sorted(listed) == sorted(kinds)


# -- links and generated parts ------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_each_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", text_of("index.md")))
    assert linked == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}


def test_generated_parts_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_a_stale_part_is_found() -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        stale = re.sub(r"(<!-- generated: .*? -->\n).*?(?=<!-- end)", r"\1old\n", text, flags=re.DOTALL)
        assert generate.generate(stale) == text
    parts = re.findall(r"<!-- generated: ([\w-]+) -->", text_of("lifecycle.md", "hooks.md", "cli.md"))
    assert sorted(parts) == sorted(generate.PARTS)
