"""Names for log files: nothing that this process has written is overwritten, however often that is."""

from pathlib import Path

from vmfsm import logpaths


def write(path: Path) -> str:
    """What a launch does; the name of the file."""
    given = Path(logpaths.unused(str(path)))
    given.write_text("")
    return given.name


def test_launches_are_counted(tmp_path: Path) -> None:
    assert [write(tmp_path / "vm.log") for _ in range(12)][-3:] == ["vm.10.log", "vm.11.log", "vm.12.log"]


def test_a_thousand_launches_take_no_more_memory_than_one(tmp_path: Path) -> None:
    write(tmp_path / "vm.log")
    entries = len(logpaths._used)
    assert write(tmp_path / "vm.log") == "vm.2.log"
    for _ in range(1_000):
        write(tmp_path / "vm.log")
    assert len(logpaths._used) == entries
    assert len(list(tmp_path.iterdir())) == 1_002


def test_somebody_takes_a_name_that_was_counted_on(tmp_path: Path) -> None:
    assert [write(tmp_path / name) for name in ("vm.log", "vm.log", "vm.2.log")] == [
        "vm.log",
        "vm.2.log",
        "vm.2.2.log",
    ]


def test_somebody_has_taken_the_name_that_comes_next(tmp_path: Path) -> None:
    given = [write(tmp_path / name) for name in ("vm.2.log", "vm.4.log", "vm.log", "vm.log", "vm.log")]
    assert given == ["vm.2.log", "vm.4.log", "vm.log", "vm.3.log", "vm.5.log"]


def test_numbers_that_are_none_of_ours(tmp_path: Path) -> None:
    names = ["vm.log", "vm.log", "vm.log", "vm.02.log", "vm.1.log", "vm.².log", ".3", "3"]
    assert [write(tmp_path / name) for name in names][3:] == names[3:]


def test_what_an_earlier_process_wrote_is_overwritten(tmp_path: Path) -> None:
    for name in ("vm.log", "vm.2.log"):
        (tmp_path / name).write_text("of another one")
    assert [write(tmp_path / "vm.log") for _ in range(2)] == ["vm.log", "vm.2.log"]


def test_the_same_file_by_another_path(tmp_path: Path) -> None:
    logs, same = tmp_path / "logs", tmp_path / "same"
    logs.mkdir()
    same.symlink_to(logs)
    assert [write(where / "vm.log") for where in (logs, same, logs)] == ["vm.log", "vm.2.log", "vm.3.log"]


def test_a_link_to_a_file_elsewhere(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "vm.log").touch()
    link = tmp_path / "link.log"
    link.symlink_to(logs / "vm.log")
    assert [write(link), write(link), write(logs / "vm.log")] == ["link.log", "link.2.log", "vm.3.log"]
    assert write(tmp_path / "link.2.log") == "link.2.2.log"


def test_what_is_no_file_is_what_it_is() -> None:
    assert {logpaths.unused("/dev/null") for _ in range(3)} == {"/dev/null"}
