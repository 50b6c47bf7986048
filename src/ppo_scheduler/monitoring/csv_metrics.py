"""Metrics as CSV with a fixed schema."""

from __future__ import annotations

import csv
import io
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import GrowingFile, write_file
from ppo_scheduler.monitoring.scalars import ScalarRow, metrics_disk_errors

_LOG = logging.getLogger("ppo")
_STEP = "global_step"


class CsvSink:
    """One row per record under a header that never grows; a missing value is an empty cell."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        resume_step: int | None,
        history: Iterable[ScalarRow] = (),
    ) -> None:
        """Open for appending.

        Args:
            columns: the names of all scalars that will ever be recorded, in order.
            resume_step: ``global_step`` of the checkpoint that a resume continues from. Rows from
                that step on are dropped: the learner records an update before it counts the
                decision that made the rollout full, so they are from after the checkpoint. None
                begins a new file; an earlier one is kept as ``NAME.1``, ``NAME.2``, ...
            history: what the resumed training has recorded. It is written again where the file
                lacks some of it, or is none of these columns; what is not in it is kept as above.

        Raises:
            UserError: the file is no such CSV and there is no history, or it cannot be written.
        """
        self._columns = tuple(columns)
        self._path = path
        header = (_STEP, *self._columns)
        recorded = list(history)
        rows: Sequence[Sequence[object]]
        with metrics_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = self._found(header, resume_step, recorded)
            write_file(path, csv_text([header, *rows]).encode())
            self._file = GrowingFile(path, csv_text([header]).encode())

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        """Append a row; after the call a killed process does not lose it any more."""
        unknown = scalars.keys() - set(self._columns)
        assert not unknown, f"scalars that are not in the schema: {sorted(unknown)}"
        with metrics_disk_errors(self._path):
            self._file.append(csv_text([(global_step, *self._cells(scalars))]).encode())

    def _found(
        self, header: tuple[str, ...], resume_step: int | None, history: Sequence[ScalarRow]
    ) -> Sequence[Sequence[object]]:
        """Return the rows to go on from: the file's, or the history where that has more."""
        steps = [step for step, _ in history]
        rows: list[list[str]] = []
        ours = resume_step is not None and _columns_of(self._path) == header
        if resume_step is not None and ours:
            try:
                rows = _rows_before(self._path, resume_step)
            except UserError as error:
                if not history:
                    raise
                ours = False
                _LOG.warning("%s; it is written again", error)
        found = [int(row[0]) for row in rows]
        if ours and (not history or found == steps):
            return rows
        if not ours or not set(found) <= set(steps):
            _set_aside(self._path)
        return [[step, *self._cells(scalars)] for step, scalars in history]

    def _cells(self, scalars: Mapping[str, float]) -> list[object]:
        return [scalars.get(name, "") for name in self._columns]

    def close(self) -> None:
        """Nothing is held open."""


def _columns_of(path: Path) -> tuple[str, ...] | None:
    """Return the header of the file, None without a file."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return tuple(next(csv.reader(file), ()))


def _rows_before(path: Path, step: int) -> list[list[str]]:
    """Return the rows of an earlier process whose ``global_step`` is below ``step``."""
    # What follows the last line end is a row that a crash cut short.
    whole = path.read_bytes().rpartition(b"\n")[0].decode("utf-8", errors="replace")
    header, *rows = csv.reader(io.StringIO(whole))
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or not row[0].isdecimal():
            raise UserError(
                f"{path}: line {number} is not a row of {len(header)} cells that begins with a "
                "global_step; repair it or move the file away"
            )
    return [row for row in rows if int(row[0]) < step]


def _set_aside(path: Path) -> None:
    """Rename the file of another training, if there is one, to the next free name."""
    if not path.exists():
        return
    for number in itertools.count(1):
        kept = path.with_name(f"{path.name}.{number}")
        if not kept.exists():
            path.rename(kept)
            return


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as the text of a CSV file, or of a part of it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
