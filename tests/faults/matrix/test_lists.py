"""No fault of the documents is left out of the matrix, but with a reason; they have its lists and counts."""

import re
from pathlib import Path

import pytest

from tests.faults.matrix.expectations import SLACK
from tests.faults.matrix.faults import FAULTS
from tests.faults.matrix.page import text
from tests.faults.matrix.points import PLACES, POINTS
from vmfsm.caller import GRACE
from vmfsm.testing import actions

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "faults.md").read_text(encoding="utf-8")
OTHERS, _, MATRIX = PAGE.partition("\n## The matrix\n")

NOT_A_WAIT = "it is about what goes on beside calls, not about one that waits"
OTHER_PROCESS = "the program that would look on is the one that it happens to"
NEVER_FAILS = "a bundle has the less in it, and nobody's call another result"
SLOW = "it takes longer than a cell may, and has the same effect as another one"

ROWS: dict[str, str | tuple[str, ...]] = {
    "test_a_qemu_that_dies_at_launch_with_a_monitor_at_a_path": ("fake: exits with 3",),
    "test_qemu_ended": ("fake: exits with 3", "fake: exits with 0"),
    "test_a_wait_for_an_event_while_other_events_arrive": ("fake: floods with events",),
    "test_a_crash_while_an_event_is_waited_for": ("signal: SIGSEGV by somebody else", "fake: crashes"),
    "test_a_death_while_nobody_calls": NOT_A_WAIT,
    "test_a_command_to_a_qemu_that_is_stopped": ("signal: SIGSTOP, never continued",),
    "test_a_shutdown_of_a_qemu_that_is_stopped": ("signal: SIGSTOP, never continued",),
    "test_nothing_outlives_a_harness_that_dies": OTHER_PROCESS,
    "test_a_flood_on_a_console_that_nobody_touches": ("guest: floods", "fake: floods its console"),
    "test_a_thread_waits_for_one_machine_and_another_one_is_used": NOT_A_WAIT,
    "test_what_a_thread_launched_that_ended_lives_on": NOT_A_WAIT,
    "test_it_is_right_or_none": OTHER_PROCESS,
    "test_while_launching_and_never_continued": ("signal: SIGSTOP, never continued",),
    "test_while_running_and_continued": ("signal: SIGSTOP and SIGCONT",),
    "test_while_quitting_and_continued": ("signal: SIGSTOP and SIGCONT",),
    "test_only_its_wrapper": ("wrapper: is stopped alone",),
    "test_of_a_running_machine": (
        "signal: SIGKILL by somebody else",
        "signal: SIGSEGV by somebody else",
        "signal: SIGTERM by somebody else",
        "signal: SIGABRT by somebody else",
    ),
    "test_it_ends_by_its_deadline": ("signal: SIGSTOP, never continued",),
    "test_that_forks_goes_with_qemu": ("wrapper: swallows signals", "fake: leaves a child"),
    "test_one_that_swallows_signals_and_outlives_qemu": ("wrapper: swallows signals and outlives QEMU",),
    "test_one_that_ends_before_qemu": ("wrapper: ends first", "wrapper: is killed"),
    "test_one_that_ends_before_a_qemu_in_a_session_of_its_own": (
        "wrapper: ends before a QEMU in a session of its own",
    ),
    "test_one_that_detaches_qemu_at_once": ("wrapper: detaches QEMU",),
    "test_out_of_memory": "a control group for each cell; to who waits it is SIGKILL by somebody else",
    "test_at_launch": ("host: no memory",),
    "test_while_it_runs": "only what asks for memory meets it, and is answered as by `refuses`",
    "test_no_more_files_for_the_private_directory": ("host: no room for files",),
    "test_no_more_files_in_the_private_directory": SLOW,
    "test_no_room_in_the_private_directory": NOT_A_WAIT,
    "test_no_room_for_the_registry": NOT_A_WAIT,
    "test_a_disk_that_is_full": NEVER_FAILS,
    "test_a_file_system_that_hangs": NEVER_FAILS,
    "test_a_harness_that_has_launched_before": ("host: no descriptors",),
    "test_all_who_wait_are_told_of_a_panic": ("guest: panics and is kept", "guest: panics"),
    "test_only_triple_is_a_triple_fault": ("guest: has a triple fault",),
    "test_a_boot_loop_is_told_to_all_who_wait_and_once": ("fake: resets for ever",),
    "test_at_any_moment_of_a_launch": OTHER_PROCESS,
    "test_nor_does_what_is_behind_a_wrapper": OTHER_PROCESS,
    "test_the_next_harness_removes_them": OTHER_PROCESS,
    "test_who_has_the_pid_by_chance_is_not_touched": OTHER_PROCESS,
    "test_nothing_is_left_behind_a_wrapper_that_is_killed": ("wrapper: is killed",),
    "test_a_child_leaves_the_block": OTHER_PROCESS,
    "test_threads_beside_a_loop_with_children_of_its_own": NOT_A_WAIT,
    "test_each_call_in_a_thread_of_its_own": NOT_A_WAIT,
    "test_under_xdist": OTHER_PROCESS,
}
"""By the first test that a line of the page names: the faults of the matrix, or why there is none."""

NO_FAULTS = {"as_qemu": "it is what QEMU does"}
POINTS_OF_FAKE = {
    "ready": "nobody waits for QEMU there",
    "on": "its commands are the points",
    "lines": "what is said to a guest is never waited for, but what it answers",
}


def test_every_line_of_the_page_is_in_the_matrix_or_has_a_reason() -> None:
    lines = [line for line in OTHERS.splitlines() if line.startswith("| ") and "::test_" in line]
    first = [re.findall(r"::(test_\w+)`", line)[0] for line in lines]
    assert sorted(set(first)) == sorted(ROWS)


@pytest.mark.parametrize("row", [row for row, faults in ROWS.items() if isinstance(faults, tuple)])
def test_those_faults_are_there(row: str) -> None:
    assert set(ROWS[row]) <= set(FAULTS)


def test_every_action_of_a_fake_qemu_is_a_fault() -> None:
    used = {action.name for fault in FAULTS.values() for action in fault.orders}
    used |= {
        one.name
        for fault in FAULTS.values()
        for on in fault.settings.values()
        for at in on.values()
        for one in at
    }
    assert used | set(NO_FAULTS) == set(actions.__all__) - {"Action"}


def test_every_point_of_a_fake_qemu_is_a_point() -> None:
    page = (DOCS / "fake-qemu.md").read_text(encoding="utf-8")
    points = set(
        re.findall(r"^\| `(\w+)`", page.partition("## Points\n")[2].partition("\n## ")[0], re.MULTILINE)
    )
    assert points == {point.at for point in POINTS.values()} & PLACES | set(POINTS_OF_FAKE)


def test_the_page_has_the_lists_and_the_counts() -> None:
    assert text() in MATRIX, "python -m tests.faults.matrix.page prints what has to be there"
    assert f"the grace of {GRACE:g} seconds, and {SLACK:g} more" in MATRIX
