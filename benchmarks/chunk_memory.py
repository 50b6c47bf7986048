"""Peak memory of each process of a training in chunks: it must not grow from chunk to chunk.

The chunks run one after the other as the driver runs them, each going on from the checkpoint of
the one before, with the default settings.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from harness import run_benchmark

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.runs.chunk_process import Signals, last_lines, run_chunk
from vidur_ext.runs.chunk_record import plan
from vidur_ext.runs.chunk_trainer import chunk_flags
from vidur_ext.runs.ownership import owned_run
from vidur_ext.runs.pipeline import training_job
from vidur_ext.runs.start import Start


def _config(root: Path, total: int) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "training": {
                "total_requests": total,
                "output_root": str(root),
            },
            "checkpointing": {"checkpoint_dir": str(root / "checkpoints")},
            "warmstart": {"enabled": False},
            "evaluation": {"enabled": False},
        }
    )


def measure(quick: bool) -> dict[str, float]:
    """Return the peaks of the first and the last chunk [MB], and the growth between them [%].

    Growth is that of a straight line through all chunks, so that one outlier does not decide.
    """
    size, chunks = (2000, 4) if quick else (200_000, 20)
    peaks = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as root:
        start = Start(_config(Path(root), chunks * size), run_dir=Path(root) / "run")
        with owned_run(start) as owned:
            for part in plan(chunks * size, size):
                job = training_job(start, owned, "latest" if part.start else None, part.stop)
                log, lock = owned.folder.chunk_log(part.chunk_id), owned.owner.lock
                assert lock is not None
                flags = chunk_flags(job, owned.folder, lock)
                ended = run_chunk(flags, log, Signals(), lambda: None, handles=[lock])
                if ended.status != 0:
                    end = last_lines(log, 5)
                    raise UserError("\n".join([f"chunk {part.chunk_id} {ended}", *end]))
                peaks.append(ended.peak_rss_mb)
    slope, first = np.polyfit(np.arange(len(peaks)), peaks, 1)
    return {
        "chunks": len(peaks),
        "requests_per_chunk": size,
        "rss_first_mb": peaks[0],
        "rss_last_mb": peaks[-1],
        "rss_largest_mb": max(peaks),
        "growth_percent": 100.0 * slope * (len(peaks) - 1) / first,
    }


if __name__ == "__main__":
    run_benchmark("peak memory of chunk processes", measure)
