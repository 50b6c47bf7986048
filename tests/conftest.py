"""What holds for all tests."""

from __future__ import annotations

import signal
from itertools import chain

import pytest

LIMIT_S = 5.0
"""No test of the default run should take longer on an idle machine, nor what it sets up."""


def pytest_configure() -> None:
    """Hear signals: a shell that runs the tests in the background, or ``nohup``, makes them, and
    all below, ignore Ctrl-C or the end of the terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Name the tests above the limit; it is no failure, since other work may be in the way."""
    if config.getoption("markexpr") != "not slow":
        return
    reports = chain.from_iterable(terminalreporter.stats.values())
    long = [
        report
        for report in reports
        if isinstance(report, pytest.TestReport) and report.duration > LIMIT_S
    ]
    if long:
        terminalreporter.section(f"above {LIMIT_S:.0f} s")
    for report in sorted(long, key=lambda report: -report.duration):
        terminalreporter.write_line(f"{report.duration:6.1f} s {report.when} {report.nodeid}")
