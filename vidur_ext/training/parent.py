"""A process that must not outlive the one that started it.

The kernel sends it SIGTERM when its parent ends, however that ends: a SIGKILL as well. For a
training SIGTERM means save and stop, so a dead driver loses no work and leaves no second trainer
behind. It may come twice: a child goes from one dying thread of its parent to the next, and each
time the kernel says so. A pipe to the parent would do as well, but needs a thread that reads it.
"""

from __future__ import annotations

import ctypes
import os
import signal

from ppo_scheduler.errors import UserError

_VARIABLE = "PPO_SCHEDULER_PARENT"
_PR_SET_PDEATHSIG = 1


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
