"""Metrics as CSV with a fixed schema."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ppo_scheduler.errors import UserError

_STEP = "global_step"


class CsvSink:
    """One row per record under a header that never grows; a missing value is an empty cell."""

    def __init__(self, path: Path, columns: Sequence[str], resume_step: int | None) -> None:
        """Open for appending; a resume drops the rows after ``resume_step``.

        Raises:
            UserError: the existing file has other columns.
        """
        self._columns = tuple(columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and resume_step is not None:
            _cut(path, (_STEP, *self._columns), resume_step)
            self._file = path.open("a", newline="", encoding="utf-8")
            self._writer = csv.writer(self._file, lineterminator="\n")
        else:
            self._file = path.open("w", newline="", encoding="utf-8")
            self._writer = csv.writer(self._file, lineterminator="\n")
            self._writer.writerow((_STEP, *self._columns))

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        unknown = scalars.keys() - set(self._columns)
        assert not unknown, f"scalars that are not in the schema: {sorted(unknown)}"
        cells = [str(scalars.get(name, "")) for name in self._columns]
        self._writer.writerow((global_step, *cells))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _cut(path: Path, header: tuple[str, ...], last_step: int) -> None:
    """Rewrite the file without the rows after ``last_step``, atomically."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != header:
        raise UserError(
            f"{path}: has other columns than this training writes (other replicas or another "
            "version?); move it away, or choose another --output-dir"
        )
    # The last line may be cut short by a crash; a row of another length is none.
    kept = [row for row in rows[1:] if len(row) == len(header) and int(row[0]) <= last_step]
    staged = path.with_name(f".{path.name}.tmp")
    with staged.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *kept])
    os.replace(staged, path)
