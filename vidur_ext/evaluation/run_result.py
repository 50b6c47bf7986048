"""What one scheduler did to one workload: the times of every request; and whether runs make a
complete comparison.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import write_file

_TIMES = ("arrived_at", "scheduled_at", "prefill_completed_at", "completed_at")
_COUNTS = ("prefill_tokens", "decode_tokens", "replica")


@dataclass(frozen=True, eq=False)
class RunResult:
    """One finished simulation of N requests, in the order of their arrival.

    The arrays are copied and read-only.

    Attributes:
        scheduler: name under which the run appears in the comparison.
        seed: number of the held-out workload; runs of one seed share their requests.
        num_replicas: replicas R of the cluster.
        arrived_at: float64[N] s, never decreasing.
        scheduled_at: float64[N] s, when the request first entered a batch.
        prefill_completed_at: float64[N] s, when its first output token was there.
        completed_at: float64[N] s, when its last output token was there.
        prefill_tokens: int64[N], at least 1.
        decode_tokens: int64[N], at least 1.
        replica: int64[N], in 0..R-1.
        uses_output_lengths: whether the scheduler knew true output lengths (an oracle).
        decisions_per_second: routed requests per second of real time, simulation included.

    Raises:
        UserError: a field of the wrong shape or type, or a request that breaks causality.
    """

    scheduler: str
    seed: int
    num_replicas: int
    arrived_at: NDArray[np.float64]
    scheduled_at: NDArray[np.float64]
    prefill_completed_at: NDArray[np.float64]
    completed_at: NDArray[np.float64]
    prefill_tokens: NDArray[np.int64]
    decode_tokens: NDArray[np.int64]
    replica: NDArray[np.int64]
    uses_output_lengths: bool
    decisions_per_second: float

    def __post_init__(self) -> None:
        if not self.scheduler:
            raise UserError("a run needs the name of its scheduler")
        if self.num_replicas < 1:
            raise self._error(f"num_replicas is {self.num_replicas}; expected at least 1")
        if not (np.isfinite(self.decisions_per_second) and self.decisions_per_second > 0):
            raise self._error(f"decisions_per_second is {self.decisions_per_second}")
        for name in _TIMES:
            self._freeze(name, np.dtype(np.float64))
        for name in _COUNTS:
            self._freeze(name, np.dtype(np.int64))
        self._check_causality()
        self._check_counts()

    def __len__(self) -> int:
        """Return the number of requests N."""
        return len(self.arrived_at)

    def workload_digest(self) -> str:
        """Return 16 hex digits that are equal for equal arrival times and token counts."""
        content = hashlib.sha256()
        for array in (self.arrived_at, self.prefill_tokens, self.decode_tokens):
            content.update(array.tobytes())
        return content.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write all fields to ``path`` atomically; the folder must exist."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> RunResult:
        """Read a file written by :meth:`save`.

        Raises:
            UserError: the file is missing, damaged, or not a run.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {f.name: file[f.name] for f in fields(cls)}
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; run the evaluation again") from error
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: not a readable evaluation run ({error}); run the evaluation again"
            ) from error
        try:
            values = {n: a if n in _TIMES + _COUNTS else a.item() for n, a in stored.items()}
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: {error}") from error

    def _error(self, what: str) -> UserError:
        return UserError(f"run of {self.scheduler} on seed {self.seed}: {what}")

    def _freeze(self, name: str, dtype: np.dtype[np.float64] | np.dtype[np.int64]) -> None:
        given = np.asarray(getattr(self, name))
        if not np.can_cast(given.dtype, dtype, "safe"):
            raise self._error(f"{name} holds {given.dtype}; expected {dtype}")
        if given.ndim != 1 or given.size == 0:
            raise self._error(f"{name} has shape {given.shape}; expected at least one request")
        if given.shape != np.shape(self.arrived_at):
            raise self._error(
                f"{name} has {given.size} entries, arrived_at has {np.size(self.arrived_at)}"
            )
        frozen = given.astype(dtype, copy=True)
        frozen.setflags(write=False)
        object.__setattr__(self, name, frozen)

    def _check_causality(self) -> None:
        for name in _TIMES:
            self._check(np.isfinite(getattr(self, name)), f"{name} is not a finite time")
        ordered = np.concatenate([[True], np.diff(self.arrived_at) >= 0])
        self._check(ordered, "it arrives before its predecessor; order requests by arrival")
        for earlier, later in pairwise(_TIMES):
            fine = getattr(self, earlier) <= getattr(self, later)
            self._check(fine, f"{later} is before {earlier}; did the simulation finish?")
        self._check(self.completed_at > self.arrived_at, "it took no time at all")

    def _check_counts(self) -> None:
        for name in ("prefill_tokens", "decode_tokens"):
            self._check(getattr(self, name) >= 1, f"{name} is below 1")
        inside = (self.replica >= 0) & (self.replica < self.num_replicas)
        self._check(inside, f"its replica is not in 0..{self.num_replicas - 1}")

    def _check(self, fine: NDArray[np.bool_], what: str) -> None:
        if not fine.all():
            raise self._error(f"request {int(np.argmin(fine))}: {what}")


RunGrid = dict[tuple[str, int], RunResult]


def complete_grid(
    runs: Sequence[RunResult], schedulers: Sequence[str], seeds: Sequence[int]
) -> RunGrid:
    """Return the runs by (scheduler, seed).

    Raises:
        UserError: a run is missing, there twice, or not expected; the runs of one seed differ in
            their requests; runs differ in the number of replicas; or a scheduler knew output
            lengths in some of its runs only. Every offending run is named.
    """
    expected = [(scheduler, seed) for scheduler in schedulers for seed in seeds]
    found = Counter((run.scheduler, run.seed) for run in runs)
    problems = [
        *_listed("missing", [key for key in expected if key not in found]),
        *_listed("there more than once", [key for key, count in found.items() if count > 1]),
        *_listed("not expected", [key for key in found if key not in set(expected)]),
    ]
    if problems:
        raise UserError(
            f"the comparison is incomplete or ambiguous: {'; '.join(problems)}. "
            "Run the evaluation again, or change evaluation.schedulers and evaluation.num_seeds "
            "to what was run"
        )
    grid = {(run.scheduler, run.seed): run for run in runs}
    for seed in seeds:
        _check_same_requests([grid[scheduler, seed] for scheduler in schedulers])
    _check_same_cluster(runs)
    for scheduler in schedulers:
        if len({grid[scheduler, seed].uses_output_lengths for seed in seeds}) > 1:
            raise UserError(
                f"{scheduler} knew true output lengths on some seeds and not on others; "
                "run all its seeds with one setting"
            )
    return grid


def _listed(what: str, keys: Sequence[tuple[str, int]]) -> list[str]:
    if not keys:
        return []
    return [f"{what}: " + ", ".join(f"({scheduler}, seed {seed})" for scheduler, seed in keys)]


def _check_same_requests(runs: Sequence[RunResult]) -> None:
    """All runs of a seed must have met the same requests, or their differences mean nothing."""
    first = runs[0]
    for run in runs[1:]:
        for name in ("arrived_at", "prefill_tokens", "decode_tokens"):
            ours, theirs = getattr(run, name), getattr(first, name)
            if not np.array_equal(ours, theirs):
                raise UserError(
                    f"{run.scheduler} and {first.scheduler} did not meet the same requests on "
                    f"seed {run.seed}: {name} differs {_where(ours, theirs)}. "
                    "Run both on the same workload"
                )


def _where(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> str:
    if len(ours) != len(theirs):
        return f"in length ({len(ours)} and {len(theirs)} requests)"
    index = int(np.argmax(ours != theirs))
    return f"first at request {index} ({ours[index]} and {theirs[index]})"


def _check_same_cluster(runs: Sequence[RunResult]) -> None:
    first = runs[0]
    for run in runs:
        if run.num_replicas != first.num_replicas:
            raise UserError(
                f"{run.scheduler} on seed {run.seed} had {run.num_replicas} replicas, "
                f"{first.scheduler} on seed {first.seed} had {first.num_replicas}; "
                "run all on one cluster"
            )
