"""What holds for every test: with `CI=true` nothing may be skipped."""

import os
from collections.abc import Generator

import pytest


def forbid_skip[Report: (pytest.TestReport, pytest.CollectReport)](report: Report) -> Report:
    """Turn a skip into a failure that gives its reason; an expected failure stays what it is."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (with CI=true a skip is a failure)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return forbid_skip((yield))
