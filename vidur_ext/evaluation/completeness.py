"""A comparison is made of exactly the runs it should be made of, or it is not made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.run_result import RunResult

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
