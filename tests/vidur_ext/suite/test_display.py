"""A suite on the terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from vidur_ext.suite.display import Display
from vidur_ext.suite.progress import Progress


@pytest.fixture
def cells(plan, tmp_path):
    return plan("one", "two", seeds=2).cells(tmp_path, {})


@pytest.fixture
def moments(cells):
    """The first cell begins, trains and ends, while the second fails; the others wait."""
    rest = dict.fromkeys(cells[2:], Progress("waiting"))
    one, two = cells[:2]
    return [
        {one: Progress("warm start", seconds=1.0), two: Progress("waiting"), **rest},
        {one: Progress("training", 0.25, 62.0), two: Progress("warm start", seconds=0.2), **rest},
        {one: Progress("training", 0.5, 99.0), two: Progress("failed", seconds=3.0), **rest},
    ]


def test_without_a_terminal_each_stage_is_one_line(moments) -> None:
    out = io.StringIO()
    with Display(Console(file=out)) as display:
        for moment in moments:
            display(moment)
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in out.getvalue().splitlines()]
    assert lines == [
        "one, seed 0: warm start (0:00:01)",
        "one, seed 0: training (0:01:02)",
        "two, seed 0: warm start (0:00:00)",
        "two, seed 0: failed (0:00:03)",
    ]


def test_on_a_terminal_scenarios_and_seeds_are_a_table(moments) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=100)
    with Display(console) as display:
        display(moments[-1])
    text = out.getvalue()
    assert "1 training, 1 failed, 2 waiting" in text
    assert re.search(r"scenario +seed 0 +seed 1", text)
    assert re.search(r"one +training 50% 0:01:39 +waiting", text)
    assert re.search(r"two +failed 0:00:03 +waiting", text)
