"""Independent simulations spread over processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def _prepare_worker() -> None:
    """One torch thread per worker: the workers themselves are the parallelism."""
    torch.set_num_threads(1)
    # The terminal sends Ctrl-C to the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def map_unordered(
    work: Callable[[Job], Result], jobs: Sequence[Job], num_workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield (index of job, result) as jobs finish; the first error ends everything.

    Workers come from a fork server that has imported the simulator once: starting one is cheap,
    and none inherits a thread or lock of this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vidur_ext.simulation.vidur_simulation", "torch"])
    workers = min(num_workers, len(jobs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker) as pool:
        futures = {pool.submit(work, job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            # Without waiting, the cancelling can be lost, and all planned work still be done.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
