"""A training that shows what it does and dies where it is told. Run as a script.

Its argument is JSON: the ``flags`` of the training; the file of its ``counts``; by how many seconds
its ``clock`` is ahead; the call before which it dies (``trip``), or null.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import sys
import time
from typing import Any

import torch

from vidur_ext.exits import exit_status
from vidur_ext.main import run
from vidur_ext.training.episodes import CompiledEpisodes, LearnerRouter
from vidur_ext.training.session import TrainingSession

FIRST, LAST, REPLAYED = range(3)
COUNTS_BYTES = 24


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


def train(told: dict[str, Any]) -> int:
    """Train as told; return the exit status."""
    torch.set_num_threads(1)
    # Threads take turns all the time: a background save that reads the living state gets caught.
    sys.setswitchinterval(1e-6)
    count_decisions(told["counts"])
    if told["clock"]:
        ahead, present = told["clock"], time.time
        time.time = lambda: present() + ahead
    if told["trip"] is not None:
        die_before(*told["trip"])
    return exit_status(lambda: run(told["flags"]))


if __name__ == "__main__":
    sys.exit(train(json.loads(sys.argv[1])))
