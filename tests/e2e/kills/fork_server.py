"""Starts trainings as forked children, so that a start costs no imports. Run as a script.

One request is one line of JSON on the standard input, one answer is one line on the output:

* ``start``: fork a child that trains as ``flags`` say; answers its ``pid``
* ``poll``: answers its ``status``, null while it runs
* ``wait``: answers its ``status`` when it has ended
* ``kill``: send SIGKILL; answers the ``status``, which is -9 unless it had ended before

A child is known to the server alone until it has been reaped, so no signal can hit a stranger.
When the input ends, or the server itself is killed, every child dies with it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import re
import signal
import sys
import time
import traceback
from typing import Any

import torch

import ppo_scheduler.monitoring.tensorboard  # noqa: F401
from vidur_ext.exits import exit_status
from vidur_ext.main import run
from vidur_ext.training.episodes import CompiledEpisodes, LearnerRouter
from vidur_ext.training.session import TrainingSession

FIRST, LAST, REPLAYED = range(3)
COUNTS_BYTES = 24
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def count_decisions(path: str) -> None:
    """Note in a file what the training has done: a mapped page survives SIGKILL.

    ``FIRST`` and ``LAST`` are the PPO steps of the first and last decision, noted before a save
    that the decision may bring; ``REPLAYED`` counts decisions that were only simulated again.
    """
    with open(path, "r+b") as file:
        counts = memoryview(mmap.mmap(file.fileno(), COUNTS_BYTES)).cast("q")
    after_decision, decide = TrainingSession._after_decision, LearnerRouter.decide
    replay_step = CompiledEpisodes._replay_step

    def counted_after_decision(self: TrainingSession) -> None:
        counts[LAST] = self.learner.ppo_step
        counts[FIRST] = counts[FIRST] or self.learner.ppo_step
        after_decision(self)

    def counted_decide(self: LearnerRouter, *arguments: Any) -> Any:
        counts[REPLAYED] += self.replaying
        return decide(self, *arguments)

    def counted_replay_step(self: CompiledEpisodes, *arguments: Any) -> None:
        counts[REPLAYED] += 1
        replay_step(self, *arguments)

    CompiledEpisodes._replay_step = counted_replay_step  # type: ignore[method-assign]
    TrainingSession._after_decision = counted_after_decision  # type: ignore[method-assign]
    LearnerRouter.decide = counted_decide  # type: ignore[method-assign]


def die_before(event: str, pattern: str, count: int) -> None:
    """Send SIGKILL to this process right before the ``count``-th such call on such a file.

    Args:
        event: Python's audit event, such as ``os.rename``.
        pattern: of the name that the call creates, opens or removes.
    """
    which = 1 if event in ("os.rename", "os.symlink") else 0
    seen = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name == event and isinstance(arguments[which], (str, bytes, os.PathLike)):
            seen += bool(re.fullmatch(pattern, os.path.basename(os.fsdecode(arguments[which]))))
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def train(parent: int, request: dict[str, Any]) -> int:
    """Be the child: return the exit status."""
    die_with_parent(parent)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Threads take turns all the time: a background save that reads the living state gets caught.
    sys.setswitchinterval(1e-6)
    count_decisions(request["counts"])
    if request["clock"]:
        ahead, present = request["clock"], time.time
        time.time = lambda: present() + ahead
    if request["trip"] is not None:
        die_before(*request["trip"])
    try:
        return exit_status(lambda: run(request["flags"]))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def start(children: set[int], request: dict[str, Any]) -> dict[str, Any]:
    server = os.getpid()
    # A thread would not live on in the child, and what it had locked would stay locked.
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads: forking is not safe"
    pid = os.fork()
    if pid == 0:
        os._exit(train(server, request))
    children.add(pid)
    return {"pid": pid}


def reap(children: set[int], pid: int, options: int = 0) -> dict[str, Any]:
    done, status = os.waitpid(pid, options)
    if not done:
        return {"status": None}
    children.remove(pid)
    return {"status": os.waitstatus_to_exitcode(status)}


def answer(children: set[int], request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "start":
        return start(children, request)
    if request["do"] == "poll":
        return reap(children, request["pid"], os.WNOHANG)
    if request["do"] == "wait":
        return reap(children, request["pid"])
    os.kill(request["pid"], signal.SIGKILL)
    return reap(children, request["pid"])


def serve() -> None:
    torch.set_num_threads(1)
    gc.freeze()
    children: set[int] = set()
    try:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(children, json.loads(line))), flush=True)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    serve()
