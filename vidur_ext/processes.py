"""Processes of our own: simulations spread over workers, and a child that must not outlive its
parent.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import BinaryIO, TypeVar

from ppo_scheduler.errors import UserError

Work = TypeVar("Work")
Result = TypeVar("Result")


def _prepare_worker() -> None:
    """One torch thread per worker: the workers themselves are the parallelism."""
    # A worker holds both ends of the queue it waits at: without this it would wait for ever for
    # the jobs of a process that was killed.
    threading.Thread(target=_end_when_orphaned, daemon=True).start()
    import torch  # takes a second: those who only start a child do without

    torch.set_num_threads(1)
    # The terminal sends Ctrl-C to the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_when_orphaned() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def map_unordered(
    work: Callable[[Work], Result], jobs: Sequence[Work], num_workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield (index of job, result) as jobs finish; the first error ends everything.

    Workers come from a fork server that has imported the first ``work`` and all it needs: starting
    one is cheap, and none inherits a thread or lock of this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
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


_VARIABLE = "PPO_SCHEDULER_PARENT"
_PR_SET_PDEATHSIG = 1


def start_child(
    module: str, arguments: Sequence[str], output: BinaryIO, handles: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start ``python -m module``, which must call ``end_with_parent``, without a terminal.

    It is in a session of its own, so that a Ctrl-C reaches it from here alone: a second one from
    the terminal would stop a training without letting it save.

    Args:
        output: file that gets what it prints.
        handles: open files that it inherits, under the same numbers.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=child_environment(),
        start_new_session=True,
        pass_fds=handles,
    )


def child_environment() -> dict[str, str]:
    """Return the environment of a child that is to end with this process."""
    return {**os.environ, _VARIABLE: str(os.getpid())}


def end_with_parent() -> None:
    """Obey ``child_environment``; without it nothing happens.

    Raises:
        UserError: the parent has ended already.
        OSError: the kernel refuses.
    """
    parent = os.environ.pop(_VARIABLE, None)
    if parent is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):  # it ended before the kernel was asked
        raise UserError(f"process {parent}, which this one belongs to, has ended: nothing is done")
