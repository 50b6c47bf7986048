"""A comparison says how long it takes, and shows from the beginning how far it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vidur_ext.evaluation import progress
from vidur_ext.evaluation.progress import about_seconds, shown_progress

HEURISTICS = ["ppo", "random", "lor"]


@pytest.mark.parametrize(
    ("schedulers", "engine", "workers", "seconds"),
    [
        (HEURISTICS, "compiled", 1, 3 * 9_000 / 30_000),
        ([*HEURISTICS, "lookahead"], "compiled", 2, 0.9 + 4 + 9_000 / 2_000 / 2),
        (HEURISTICS, "vidur", 2, 4 + 3 * 9_000 / 450 / 2),
        (["lookahead"], "vidur", 1, 4 + 9_000 / 450),
    ],
)
def test_how_long_it_takes_follows_from_what_simulates(schedulers, engine, workers, seconds):
    assert about_seconds(schedulers, engine, 9_000, workers) == pytest.approx(seconds)


@pytest.mark.parametrize(("bar", "is_terminal"), [(True, True), (True, False), (False, True)])
def test_the_bar_is_there_before_the_first_scheduler_is_done(monkeypatch, bar, is_terminal):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=80)
    monkeypatch.setattr(progress, "terminal", lambda: console)
    with shown_progress("compared", 3, 0.0, bar=bar):
        assert ("0/3" in screen.getvalue()) == (bar and is_terminal)


def test_a_line_per_scheduler_has_its_mean_and_what_is_left(caplog, make_run):
    caplog.set_level("INFO", "ppo")
    with shown_progress("compared", 1, 0.25, bar=True) as report:
        report([make_run("lor")], 1, 1)  # E2E of 2.5, 1, 8 and 5 s; the first is warm-up
    assert caplog.messages == ["compared 1/1, about 0:00:00 left: lor, mean E2E 4.67 s"]
