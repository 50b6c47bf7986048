"""Progress tells how far, how fast and how long still, on a terminal and off it."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from ppo_scheduler.monitoring.progress_bar import ProgressBar
from ppo_scheduler.monitoring.run_log import run_log, terminal

SHOW_CURSOR, HIDE_CURSOR, ERASE_LINE = "\x1b[?25h", "\x1b[?25l", "\x1b[2K"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(caplog):
    """Return the log lines of progress so far."""
    caplog.set_level(logging.INFO, logger="ppo")
    return lambda: [record.getMessage() for record in caplog.records]


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def screen_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, legacy_windows=False)


def screen(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def interrupt(progress: ProgressBar) -> None:
    """Let Ctrl-C come after the first update."""

    def work() -> None:
        with progress:
            progress.update(32, 0.0, 1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


def test_a_line_tells_all_facts(clock, lines):
    console = plain()
    with ProgressBar(10_000, console, enabled=True, clock=clock) as progress:
        progress.update(0, -1.0, 2.0)
        clock.now += 20.0
        progress.update(1000, -0.12345, 2.345)
        assert lines() == [
            "training 1000/10000 decisions, 50/s, 3:00 left, reward -0.123, latency 2.35 s"
        ]
    assert screen(console) == ""


def test_decisions_of_before_a_resume_do_not_count_as_speed(clock, lines):
    progress = ProgressBar(10_000, plain(), enabled=True, clock=clock)
    progress.update(9000, 0.0, 1.0)
    clock.now += 100.0
    progress.update(9100, 0.0, 1.0)
    assert "9100/10000 decisions, 1/s, 15:00 left" in lines()[-1]


def test_speed_counts_from_the_beginning_not_from_the_first_update(clock, lines):
    """On Vidur the first update may be the only one."""
    progress = ProgressBar(2000, plain(), enabled=True, clock=clock)
    progress.begin(0)
    clock.now += 20.0
    progress.update(1000, -0.5, 1.5)
    assert lines() == [
        "training 1000/2000 decisions, 50/s, 0:20 left, reward -0.500, latency 1.50 s"
    ]


def test_between_two_updates_lines_go_on(clock, lines):
    progress = ProgressBar(2000, plain(), enabled=True, clock=clock)
    progress.begin(100)
    for done in range(125, 1600, 25):
        clock.now += 0.25
        progress.tick(done)
    assert lines() == ["training 1100/2000 decisions, 100/s, 0:09 left"]


def test_long_times_are_told_in_hours(clock, lines):
    progress = ProgressBar(100_000, plain(), enabled=True, clock=clock)
    progress.update(0, 0.0, 1.0)
    clock.now += 10.0
    progress.update(100, 0.0, 1.0)
    assert "2:46:30 left" in lines()[-1]


def test_what_is_not_known_yet_is_not_invented(clock, lines):
    progress = ProgressBar(1000, plain(), enabled=True, clock=clock)
    clock.now += 10.0
    progress.update(100, 0.0, float("nan"))
    assert lines() == ["training 100/1000 decisions, 0/s, -- left, reward 0.000, latency -- s"]


def test_lines_come_at_most_every_ten_seconds(clock, lines):
    progress = ProgressBar(1_000_000, plain(), enabled=True, clock=clock)
    for step in range(100):
        progress.update(step, 0.0, 1.0)
        clock.now += 1.0
    assert [line.split("/")[0] for line in lines()] == [
        f"training {step}" for step in range(10, 100, 10)
    ]


def test_the_end_is_told_although_the_last_update_came_before_it(clock, lines):
    with ProgressBar(240, plain(), enabled=True, clock=clock) as progress:
        progress.update(32, 0.0, 1.0)
        clock.now += 2.0
        progress.update(224, -0.5, 1.5)
        progress.finish(240)
    assert lines() == ["training 240/240 decisions, 104/s, done, reward -0.500, latency 1.50 s"]


def test_a_chunk_ends_where_it_ends(clock, lines):
    with ProgressBar(240, plain(), enabled=True, clock=clock) as progress:
        progress.update(32, 0.0, 1.0)
        clock.now += 2.0
        progress.update(64, -0.5, 1.5)
        progress.finish(72)
    assert lines() == ["training 72/240 decisions, 20/s, 0:08 left, reward -0.500, latency 1.50 s"]


def test_an_interrupted_training_is_not_called_done(clock, lines):
    interrupt(ProgressBar(240, plain(), enabled=True, clock=clock))
    assert lines() == []


def test_a_training_without_an_update_tells_nothing(clock, lines):
    with ProgressBar(10, plain(), enabled=True, clock=clock) as progress:
        progress.finish(10)
    assert lines() == []


def test_a_terminal_gets_a_bar_and_the_log_its_lines(clock, tmp_path, capsys):
    console, log = screen_console(), tmp_path / "ppo_training.log"
    with run_log(log, "info"), ProgressBar(1000, console, enabled=True, clock=clock) as progress:
        progress.update(0, 0.0, 1.0)
        clock.now += 20.0
        progress.update(500, -0.5, 1.5)
        progress.finish(1000)
    assert "1000/1000 decisions, 50/s, done, reward -0.500, latency 1.50 s" in screen(console)
    assert [line.split()[2:4] for line in log.read_text(encoding="utf-8").splitlines()] == [
        ["training", "500/1000"],
        ["training", "1000/1000"],
    ]
    assert capsys.readouterr().err == ""


def test_switched_off_a_terminal_gets_lines(clock, lines):
    console = screen_console()
    with ProgressBar(1000, console, enabled=False, clock=clock) as progress:
        clock.now += 20.0
        progress.update(500, 0.0, 1.0)
        progress.finish(1000)
    assert screen(console) == ""
    assert len(lines()) == 2


def test_an_interrupt_gives_the_cursor_back(clock):
    console = screen_console()
    interrupt(ProgressBar(240, console, enabled=True, clock=clock))
    assert HIDE_CURSOR in screen(console)
    assert screen(console).rindex(SHOW_CURSOR) > screen(console).rindex(HIDE_CURSOR)


def test_the_bar_makes_way_for_log_lines(tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich then takes standard error for a terminal.
    monkeypatch.setenv("TERM", "xterm")
    terminal.cache_clear()  # Another test may have made the console, for another terminal.
    with (
        run_log(tmp_path / "ppo_training.log", "info"),
        ProgressBar(1000, terminal(), enabled=True, clock=clock) as progress,
    ):
        progress.update(10, 0.0, 1.0)
        logging.getLogger("ppo").info("hello")
    before, _ = capsys.readouterr().err.split("hello")
    assert before.rindex(ERASE_LINE) > before.rindex("training")
