"""What one scheduler did to one workload: the times of every request; and whether runs make a
complete comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.workload.frozen_columns import freeze_columns
from vidur_ext.workload.request_table import RequestTable

_TIMES = ("arrived_at", "scheduled_at", "prefill_completed_at", "completed_at")
_COUNTS = ("replica", "found_tokens", "preemptions")


class Served(NamedTuple):
    """What became of N requests: times float64[N] s and counts int64[N], see :class:`RunResult`."""

    arrived_at: NDArray[np.float64]
    scheduled_at: NDArray[np.float64]
    prefill_completed_at: NDArray[np.float64]
    completed_at: NDArray[np.float64]
    replica: NDArray[np.int64]
    found_tokens: NDArray[np.int64]
    preemptions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RunResult:
    """One finished simulation of N requests, in the order of their table.

    The arrays are copied and read-only. Simulations make it with :meth:`of`.

    Attributes:
        scheduler: name under which the run appears in the comparison.
        seed: number of the held-out workload; runs of one seed share their requests.
        num_replicas: replicas R of the cluster.
        table: the requests.
        arrived_at: float64[N] s, when the request arrived; the table's time, but for those that
            wait for answers.
        scheduled_at: float64[N] s, when the request first entered a batch.
        prefill_completed_at: float64[N] s, when its first output token was there.
        completed_at: float64[N] s, when its last output token was there.
        replica: int64[N], in 0..R-1.
        found_tokens: int64[N], of the prompt, in the replica's prefix cache when it was first
            scheduled.
        preemptions: int64[N], how often the request had to begin again.
        uses_output_lengths: whether the scheduler knew true output lengths (an oracle).
        decisions_per_second: simulated requests per second of real time, routing included: a speed
            of the simulator with this scheduler, not of a router at work. Runs made side by side
            share one figure.

    Raises:
        UserError: a field of the wrong shape or type, or a request that breaks causality.
    """

    scheduler: str
    seed: int
    num_replicas: int
    table: RequestTable
    arrived_at: NDArray[np.float64]
    scheduled_at: NDArray[np.float64]
    prefill_completed_at: NDArray[np.float64]
    completed_at: NDArray[np.float64]
    replica: NDArray[np.int64]
    found_tokens: NDArray[np.int64]
    preemptions: NDArray[np.int64]
    uses_output_lengths: bool
    decisions_per_second: float

    def __post_init__(self) -> None:
        if not self.scheduler:
            raise UserError("a run needs the name of its scheduler")
        if self.num_replicas < 1:
            raise self._error(f"num_replicas is {self.num_replicas}; expected at least 1")
        if not (np.isfinite(self.decisions_per_second) and self.decisions_per_second > 0):
            raise self._error(f"decisions_per_second is {self.decisions_per_second}")
        if len(self) == 0:
            raise self._error("its table is empty; expected at least one request")
        try:
            freeze_columns(self, _TIMES, np.float64, len(self))
            freeze_columns(self, _COUNTS, np.int64, len(self))
        except UserError as error:
            raise self._error(str(error)) from None
        self._check_causality()
        inside = (self.replica >= 0) & (self.replica < self.num_replicas)
        self._check(inside, f"its replica is not in 0..{self.num_replicas - 1}")
        found = (self.found_tokens >= 0) & (self.found_tokens < self.table.prefill_tokens)
        self._check(found, "its found_tokens are not a part of its prompt")
        self._check(self.preemptions >= 0, "its preemptions are negative")

    @classmethod
    def of(
        cls,
        scheduler: str,
        seed: int,
        table: RequestTable,
        served: Served,
        *,
        num_replicas: int,
        oracle: bool,
        speed: float,
    ) -> RunResult:
        """Return what a simulator made of ``table``.

        Args:
            oracle: whether the scheduler knew true output lengths.
            speed: requests simulated per second of real time.
        """
        return cls(
            scheduler=scheduler,
            seed=seed,
            num_replicas=num_replicas,
            table=table,
            **served._asdict(),
            uses_output_lengths=oracle,
            decisions_per_second=speed,
        )

    def __len__(self) -> int:
        """Return the number of requests N."""
        return len(self.table)

    def _error(self, what: str) -> UserError:
        return UserError(f"run of {self.scheduler} on seed {self.seed}: {what}")

    def _check_causality(self) -> None:
        for name in _TIMES:
            self._check(np.isfinite(getattr(self, name)), f"{name} is not a finite time")
        for before, after in pairwise(_TIMES):
            in_order = getattr(self, before) <= getattr(self, after)
            self._check(in_order, f"{after} is before {before}; did the simulation finish?")
        self._check(self.completed_at > self.arrived_at, "it took no time at all")

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
            ours, theirs = getattr(run.table, name), getattr(first.table, name)
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
