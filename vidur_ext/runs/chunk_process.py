"""The process of one chunk: started, watched, told of signals, and waited for."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from ppo_scheduler.files import appending, disk_errors
from vidur_ext.processes import STOPS, catching, ending, start_child

HEADING = "--- chunk started at "
_POLL_S = 0.1
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How a chunk's process ended: exit status (-n: killed by signal n) and peak memory [MB]."""

    status: int
    peak_rss_mb: float

    def __str__(self) -> str:
        return ending(self.status)


class Signals:
    """Hands what ``SignalRequests`` obeys on to the chunk that runs; remembers the first stop."""

    def __init__(self) -> None:
        self.stop: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside the block."""
        with catching(dict.fromkeys((*STOPS, signal.SIGUSR1), self._pass_on)):
            yield

    @contextmanager
    def reaching(self, child: subprocess.Popen[bytes]) -> Iterator[None]:
        """Hand signals on to ``child`` inside the block, also one that came just before."""
        self._child = child
        try:
            if self.stop is not None:
                child.send_signal(self.stop)
            yield
        finally:
            self._child = None

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if number in STOPS and self.stop is None:
            self.stop = number
        if self._child is not None:
            self._child.send_signal(number)


def run_chunk(
    flags: Sequence[str],
    log: Path,
    signals: Signals,
    show: Callable[[], None],
    handles: Sequence[int] = (),
) -> Ended:
    """Run ``python -m vidur_ext.main`` with ``flags`` to its end.

    Args:
        log: what the process prints is appended to it, below a line that says when it began.
        show: called again and again while the process runs, and once after its end.
        handles: open files that the process inherits.

    Raises:
        UserError: the log cannot be written.
    """
    with disk_errors(log, "the chunk's log cannot be written", "Free space or rights there"):
        output = appending(log)
    with output:
        begun = datetime.now().astimezone().isoformat(timespec="seconds")
        output.write(f"{HEADING}{begun}\n".encode())
        child = start_child("vidur_ext.main", flags, output, handles)
        with signals.reaching(child):
            return _watch(child, show)


def _watch(child: subprocess.Popen[bytes], show: Callable[[], None]) -> Ended:
    peak = 0.0
    try:
        while (status := child.poll()) is None:
            peak = max(peak, _peak_rss_mb(child.pid))
            show()
            time.sleep(_POLL_S)
    except BaseException:
        child.terminate()  # it saves; nobody is left to wait for it
        raise
    show()
    return Ended(status, peak)


def _peak_rss_mb(pid: int) -> float:
    """Return the peak resident memory of a process so far [MB]; 0 when it has just ended.

    ``getrusage`` would not do: a child's maximum includes what its parent held when it forked.
    """
    with suppress(OSError):
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
        return 0.0 if found is None else int(found[1]) * 1024 / 1e6
    return 0.0


class Follower:
    """Shows what is appended to a file, whole lines only."""

    def __init__(
        self,
        path: Path,
        write: Callable[[str], object],
        wanted: Callable[[str], bool] = lambda line: True,
    ) -> None:
        """Begin after what the file holds now."""
        self._path = path
        self._write = write
        self._wanted = wanted
        self._position = path.stat().st_size if path.exists() else 0

    def __call__(self) -> None:
        """Show the lines that have come since the last call."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            self._show_lines(file)

    def _show_lines(self, file: BinaryIO) -> None:
        file.seek(self._position)
        text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines(keepends=True):
            if self._wanted(line):
                self._write(line)


def last_lines(log: Path, count: int) -> list[str]:
    """Return the last lines of a log, without empty ones."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()][-count:]
