"""At the end of the whole matrix: its counts."""

from collections import Counter

import pytest

from tests.faults.matrix.cells import CELLS, IMPOSSIBLE
from tests.faults.matrix.test_matrix import WHOLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not WHOLE:
        return
    reports = {
        outcome: [one for one in terminalreporter.stats.get(outcome, []) if "::test_cell[" in one.nodeid]
        for outcome in ("passed", "failed", "error", "skipped")
    }
    terminalreporter.section("the matrix of faults")
    for outcome, found in reports.items():
        terminalreporter.write_line(f"{len(found):6} cells {outcome} of {len(CELLS)}")
    for reason, count in Counter(IMPOSSIBLE.values()).most_common():
        terminalreporter.write_line(f"{count:6} pairs are none: {reason}")
