"""Which requests of a trace a training saw, whatever is held out of it, or in the file, by now."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from vidur_ext.config.sections import WorkloadSection
from vidur_ext.workload.run_workloads import read_trace
from vidur_ext.workload.trace_rows import file_status, read_bytes
from vidur_ext.workload.trace_stream import held_out_count

TrainedRows = dict[str, int]
"""How many requests from the beginning of a trace may have been trained on, by its digest."""


def trace_digest(workload: WorkloadSection) -> str | None:
    """Return the beginning of the SHA-256 of the trace a workload replays; None without one.

    Raises:
        UserError: the file cannot be read.
    """
    if workload.source != "trace" or workload.trace_file is None:
        return None
    path = Path(workload.trace_file)
    status = file_status(path)
    return _digest(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    """Read once per process; time and size are part of the key."""
    return hashlib.sha256(read_bytes(path)).hexdigest()[:16]


def trained_rows(workload: WorkloadSection, before: Mapping[str, int]) -> TrainedRows:
    """Return what a training on a workload may see, with what was trained on before."""
    digest = trace_digest(workload)
    if digest is None:
        return dict(before)
    return {**before, digest: max(_not_held_out(workload), before.get(digest, 0))}


def doubt_about_held_out(workload: WorkloadSection, trained: Mapping[str, int]) -> str | None:
    """Say that what is held out has been trained on; None if it has not."""
    digest = trace_digest(workload)
    if digest is None or not trained:
        return None
    first = _not_held_out(workload)
    held_out = len(read_trace(workload).table) - first
    overlap = min(max(trained.get(digest, 0) - first, 0), held_out)
    if overlap:
        return f"{overlap} of the {held_out} requests held out have been trained on"
    if trained.keys() - {digest}:
        return (
            "another trace, or another content of this one, was trained on as well: whether it "
            "had requests that are held out now cannot be told"
        )
    return None


def _not_held_out(workload: WorkloadSection) -> int:
    count = len(read_trace(workload).table)
    return count - held_out_count(count, workload.holdout_fraction)
