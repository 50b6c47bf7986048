"""Processes of our own: simulations spread over workers, a child that must not outlive its parent,
and the signals that reach them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.util import get_temp_dir
from types import FrameType
from typing import BinaryIO, TypeVar

from ppo_scheduler.allocator import keep_freed_memory
from ppo_scheduler.errors import UserError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to stop: Ctrl-C, another process, and a terminal that is closed."""

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def catching(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handle signals inside the block, but for a SIGHUP that the caller ignores (``nohup``)."""
    caught = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, before in caught.items():
            signal.signal(number, before)


def compute_with(threads: int) -> None:
    """Give this process so many torch threads, and let it use memory again that it has freed."""
    import torch  # takes a second: those who only start a child do without

    torch.set_num_threads(threads)
    keep_freed_memory()


Work = TypeVar("Work")
Result = TypeVar("Result")


def _prepare_worker() -> None:
    """One torch thread per worker: the workers themselves are the parallelism."""
    # A worker holds both ends of the queue it waits at: without this it would wait for ever for
    # the jobs of a process that was killed.
    threading.Thread(target=_end_when_orphaned, daemon=True).start()
    compute_with(1)


def _end_when_orphaned() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def map_unordered(
    work: Callable[[Work], Result], jobs: Sequence[Work], num_workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield (index of job, result) as jobs finish; the first error ends everything at once.

    Workers come from a fork server that has imported the first ``work`` and all it needs: starting
    one is cheap, and none inherits a thread or lock of this process.

    Raises:
        UserError: a worker was killed, or none can be started.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    _start_fork_server()
    workers = min(num_workers, len(jobs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker) as pool:
        try:
            futures = {pool.submit(work, job): index for index, job in enumerate(jobs)}
            pool.submit(int)  # wakes who watches the workers: it has not seen the last one yet
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            for worker in multiprocessing.active_children():
                worker.kill()
            # Without waiting, the cancelling can be lost, and all planned work still be done.
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenExecutor):
                raise UserError(
                    "a process that worked for this one was killed: perhaps memory ran out. End "
                    "other programs, or lower parallel_training.num_workers"
                ) from error
            raise


def _start_fork_server() -> None:
    """Start it where its socket can be, and deaf to the terminal.

    That sends Ctrl-C and its own end to the whole group; this process decides what they mean. Who
    is started while a signal is blocked never gets it; here it comes when the block ends.
    """
    with _short_temporary_folder():
        get_temp_dir()  # made once, for the sockets of this process
    deaf_to = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf_to)
    try:
        resource_tracker.ensure_running()  # whose start unblocks some
        signal.pthread_sigmask(signal.SIG_BLOCK, deaf_to)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_LONGEST_FOLDER = 60
"""Bytes; a socket's path has at most 107, of which its name and its folder's take some 40."""


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Inside the block temporary files go to /tmp if $TMPDIR is too long for a socket."""
    chosen = tempfile.gettempdir()
    if len(os.fsencode(chosen)) > _LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = chosen


def ending(status: int) -> str:
    """Say how a process ended with an exit status (-n: killed by signal n)."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


_VARIABLE = "PPO_SCHEDULER_PARENT"
_PR_SET_PDEATHSIG = 1


def start_child(
    module: str,
    arguments: Sequence[str],
    output: BinaryIO,
    handles: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``python -m module``, which must call ``end_with_parent``, without a terminal.

    It is in a session of its own, so that a Ctrl-C reaches it from here alone: a second one from
    the terminal would stop a training without letting it save.

    Args:
        output: file that gets what it prints.
        handles: open files that it inherits, under the same numbers.
        variables: of its environment, beside those of this process.
    """
    # It imports for seconds before it listens: a signal that asks for a save must not kill it.
    with catching({signal.SIGUSR1: signal.SIG_IGN}):
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**child_environment(), **(variables or {})},
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
