"""Requests whose text is given by segments, and a replica that runs by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from vidur_ext.vidur.vllm_v1.scheduler import Limits, Request, Scheduler, Step
from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.prompts import Prompts


def requests_of(rows, block_size):
    """Return requests of rows ([(segment, tokens), ...], output tokens); answers are unique.

    The answer of row i is segment 1000 + i.
    """
    prompts = [prompt for prompt, _ in rows]
    outputs = np.array([output for _, output in rows], dtype=np.int64)
    answers = [1000 + row for row in range(len(rows))]
    runs = block_runs(Prompts.of(prompts, answers), outputs, block_size)
    return [
        Request(sum(n for _, n in prompt), output, runs.of_request(i).tolist())
        for i, (prompt, output) in enumerate(rows)
    ]


@dataclass
class Replica:
    """A scheduler and its requests, known by their number."""

    scheduler: Scheduler
    requests: list[Request]
    steps: list[Step] = field(default_factory=list)

    def arrive(self, *numbers: int) -> None:
        for number in numbers:
            self.scheduler.add(self.requests[number])

    def step(self):
        """Take a step: return the batch as (request, tokens), in its order."""
        step = self.scheduler.schedule()
        self.steps.append(step)
        batch = [(self.requests.index(r), tokens) for r, tokens in step.scheduled]
        self.scheduler.update(step)
        return batch

    def run(self) -> None:
        """Take steps until nothing is left to do."""
        while self.scheduler.waiting or self.scheduler.running:
            assert self.step() or self.steps[-1].preempted

    @property
    def hits(self):
        """Tokens found in the cache at each admission, as (request, tokens)."""
        return [(self.requests.index(r), n) for step in self.steps for r, n in step.admitted]

    @property
    def preempted(self):
        return [self.requests.index(r) for step in self.steps for r in step.preempted]


@pytest.fixture
def replica():
    def build(rows, num_blocks=100, block_size=4, max_num_seqs=8, budget=100, **limits):
        return Replica(
            Scheduler(Limits(num_blocks, block_size, max_num_seqs, budget, **limits)),
            requests_of(rows, block_size),
        )

    return build
