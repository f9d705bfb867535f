"""Where VMFSM_TEST_NO_SKIP is set, a skipped test is a failed one: in CI nothing may be missing."""

import os
from collections.abc import Generator

import pytest

FORBIDDEN = os.environ.get("VMFSM_TEST_NO_SKIP", "") not in {"", "0"}


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped, too, but has run, unless marked `run=False`.
    ran = "[NOTRUN]" not in getattr(report, "wasxfail", "[NOTRUN]")
    if FORBIDDEN and report.skipped and not ran:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"not allowed by VMFSM_TEST_NO_SKIP: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
