"""Running the cells of a suite: so many processes at a time, told to stop when the suite is."""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType

from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.files import appending, disk_errors, write_file
from vidur_ext.config.loading import dump_config
from vidur_ext.processes import STOPS, catching, ending, start_child
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.chunk_process import last_lines
from vidur_ext.suite.plan import Cell
from vidur_ext.suite.progress import Progress, progress_of

Show = Callable[[Mapping[Cell, Progress]], None]
"""Is told of every cell, again and again."""

_POLL_S = 0.2
_SHOWN_LINES = 5


def run_cells(cells: Sequence[Cell], processes: int, show: Show) -> None:
    """Run what is not done yet; a cell that fails does not stop the others.

    Raises:
        UserError: cells failed; the text names each with the end of its log.
        Interrupted: a signal asked to stop; running trainings have saved.
    """
    driver = _Driver(cells, processes, show)
    try:
        with _stops() as stops:
            driver.run(stops)
    finally:
        driver.terminate()  # they save; nobody is left to wait for them
    if stops:
        done = sum(cell.done for cell in cells)
        raise Interrupted(stops[0], f"{done} of {len(cells)} are done. Start again to go on")
    if driver.failures:
        raise UserError(
            f"{len(driver.failures)} of {len(cells)} trainings failed, and no report is written "
            "without them. Start again to go on with them\n" + "\n".join(driver.failures)
        )


@contextmanager
def _stops() -> Iterator[list[int]]:
    """Collect the signals that ask to stop inside the block."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    with catching(dict.fromkeys(STOPS, note)):
        yield received


@dataclass(frozen=True)
class _Running:
    child: subprocess.Popen[bytes]
    log: Path
    since: float


class _Driver:
    """The processes of cells."""

    def __init__(self, cells: Sequence[Cell], processes: int, show: Show) -> None:
        self.failures: list[str] = []
        self._cells = cells
        self._processes = processes
        self._show = show
        self._waiting = deque(cell for cell in cells if not cell.done)
        self._running: dict[Cell, _Running] = {}
        self._ended: dict[Cell, Progress] = {}

    def run(self, stops: Sequence[int]) -> None:
        """Run the cells until all have ended; after a stop no more begin, and those save."""
        told = False
        while self._running or (self._waiting and not stops):
            while self._waiting and len(self._running) < self._processes and not stops:
                cell = self._waiting.popleft()
                self._running[cell] = _start(cell)
            if stops and not told:
                self.terminate()
                told = True
            self._collect(stopped=told)
            self._show({cell: self._progress(cell) for cell in self._cells})
            time.sleep(_POLL_S if self._running else 0.0)

    def terminate(self) -> None:
        """Ask all processes to save and end."""
        for running in self._running.values():
            running.child.terminate()

    def _collect(self, *, stopped: bool) -> None:
        """Take leave of processes that have ended."""
        for cell, running in list(self._running.items()):
            status = running.child.poll()
            if status is None:
                continue
            del self._running[cell]
            seconds = time.monotonic() - running.since
            if cell.done:
                self._ended[cell] = Progress("done", seconds=seconds)
                continue
            self._ended[cell] = Progress("stopped" if stopped else "failed", seconds=seconds)
            if not stopped:
                lines = "\n".join(f"    {line}" for line in last_lines(running.log, _SHOWN_LINES))
                self.failures.append(
                    f"  {cell.name} {ending(status)}; the end of {running.log}:\n{lines}"
                )

    def _progress(self, cell: Cell) -> Progress:
        if cell in self._ended:
            return self._ended[cell]
        if cell in self._running:
            return progress_of(cell, time.monotonic() - self._running[cell].since)
        return Progress("done" if cell.done else "waiting")


def _start(cell: Cell) -> _Running:
    log = cell.folder.path / "process.log"
    with disk_errors(log, "a training cannot be started there", "Free space or rights there"):
        RunFolder.at(cell.folder.path)
        write_file(cell.folder.config, dump_config(cell.config).encode())
        with appending(log) as output:
            output.write(
                f"--- started at {datetime.now().astimezone():%Y-%m-%dT%H:%M:%S%z}\n".encode()
            )
            child = start_child("vidur_ext.suite.cell", [str(cell.folder.path)], output)
    return _Running(child, log, time.monotonic())
