"""How far training is, how fast it goes, and when it will be done."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from typing_extensions import Self

from ppo_scheduler.monitoring.run_log import FILE_ONLY

_LOG = logging.getLogger("ppo")
_LOG_EVERY_S = 10.0
_DRAW_EVERY_S = 0.5


class ProgressBar:
    """A log line at most every ten seconds, and one at the end; on a terminal a bar instead of it.

    The log file has the lines in any case.

    A context manager. Leaving it without an exception means that all decisions were made; leaving
    it in any way gives the terminal its cursor back.
    """

    def __init__(
        self,
        total: int,
        console: Console,
        *,
        enabled: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at no decisions.

        Args:
            total: decisions that make the whole, over all resumes.
            console: the one that log lines go to, so that they stay above the bar.
            enabled: off writes log lines on a terminal, too.
            clock: seconds since some moment.
        """
        self._total = total
        self._clock = clock
        self._started: tuple[float, int] | None = None
        self._last_line = self._last_drawn = clock()
        self._last_means: tuple[float, float] | None = None
        self._bar = (
            Progress(
                TextColumn("training"),
                BarColumn(),
                TextColumn("{task.fields[facts]}"),
                console=console,
                transient=False,
            )
            if enabled and console.is_terminal
            else None
        )
        self._task = None if self._bar is None else self._bar.add_task("", total=total, facts="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, done: int) -> None:
        """Measure speed and remaining time from here on, not from the first call of another method
        on: decisions of before a resume do not count, the time until the first update does.
        """
        self._started = (self._clock(), done)

    def tick(self, done: int) -> None:
        """Show that decisions were made since the last update, which may be long ago."""
        now = self._clock()
        if now - self._last_drawn >= _DRAW_EVERY_S:
            self._show(now, done)

    def update(self, done: int, mean_reward: float, mean_latency_s: float) -> None:
        """Show the state after an update, with ``done`` decisions.

        ``mean_latency_s`` is NaN before any request completed.
        """
        self._last_means = (mean_reward, mean_latency_s)
        self._show(self._clock(), done)

    def _show(self, now: float, done: int) -> None:
        if self._started is None:
            self._started = (now, done)
        facts = self._facts(now, done)
        self._draw(done, facts)
        self._last_drawn = now
        if now - self._last_line >= _LOG_EVERY_S:
            self._last_line = now
            self._log(facts)

    def finish(self, done: int) -> None:
        """Show where this process ends: after its last update, at its last decision."""
        if self._last_means is not None:
            facts = self._facts(self._clock(), done)
            self._draw(done, facts)
            self._log(facts)

    def _draw(self, done: int, facts: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, facts=facts)

    def _log(self, facts: str) -> None:
        _LOG.info("training %s", facts, extra=FILE_ONLY if self._bar is not None else None)

    def _facts(self, now: float, done: int) -> str:
        assert self._started is not None
        since, first = self._started
        speed = (done - first) / (now - since) if now > since else 0.0
        if done >= self._total:
            left = "done"
        else:
            left = f"{_duration((self._total - done) / speed)} left" if speed > 0.0 else "-- left"
        means = ""
        if self._last_means is not None:
            reward, latency_s = self._last_means
            latency = "--" if math.isnan(latency_s) else f"{latency_s:.2f}"
            means = f", reward {reward:.3f}, latency {latency} s"
        return f"{done}/{self._total} decisions, {speed:.0f}/s, {left}{means}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
