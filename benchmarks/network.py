"""The default network and its gradients: compiled code beside torch, on one thread.

Processor time per decision, medians of alternating runs: other work on the machine takes none of
it, though it takes caches. Inference is what a ``RoutingPolicy`` does for NumPy features; learning
is forward and backward through torch's graph.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np
import torch
from harness import run_benchmark

from ppo_scheduler.config.learner_sections import ArchitectureSection, Kernel
from ppo_scheduler.policy.routing_policy import Features, RoutingPolicy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema

_BATCHES = (1, 100, 1024, 8192)
_REPLICAS = 4
_TIMED_TOGETHER = 4096
"""Decisions of one measurement, or the batch where that is larger."""


def _microseconds(work: Callable[[], object], batch: int) -> float:
    repetitions = max(1, _TIMED_TOGETHER // batch)
    started = time.thread_time()
    for _ in range(repetitions):
        work()
    return 1e6 * (time.thread_time() - started) / (repetitions * batch)


def _learning(policy: RoutingPolicy, features: Features) -> Callable[[], None]:
    replicas, context = (torch.from_numpy(part) for part in features)
    of_logits, of_values = torch.ones(replicas.shape[:2]), torch.ones(len(replicas))

    def learn() -> None:
        policy.network.zero_grad()
        torch.autograd.backward(policy.network(replicas, context), (of_logits, of_values))

    return learn


def measure(quick: bool) -> dict[str, float]:
    """Return processor time [us per decision], and torch's by that of compiled code."""
    torch.set_num_threads(1)
    schema = observation_schema(TrainingConfig().observation)
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    for batch in _BATCHES:
        features = (
            rng.standard_normal((batch, _REPLICAS, len(schema.replica)), np.float32),
            rng.standard_normal((batch, len(schema.context)), np.float32),
        )
        works: dict[str, Callable[[], object]] = {}
        for kernel in get_args(Kernel):
            policy = RoutingPolicy(schema, ArchitectureSection(), 10.0, kernel)
            policy.initialize(0)
            works[f"{kernel}_inference_us_{batch}"] = partial(policy.evaluate, features)
            works[f"{kernel}_learning_us_{batch}"] = _learning(policy, features)
        times: dict[str, list[float]] = {name: [] for name in works}
        for attempt in range(3 if quick else 20):
            for name, work in works.items():
                taken = _microseconds(work, batch)
                if attempt > 0:  # the first one loads machine code
                    times[name].append(taken)
        figures |= {name: statistics.median(taken) for name, taken in times.items()}
        for part in ("inference", "learning"):
            figures[f"{part}_torch_by_fused_{batch}"] = statistics.median(
                torchs / ours
                for torchs, ours in zip(
                    times[f"torch_{part}_us_{batch}"],
                    times[f"fused_{part}_us_{batch}"],
                    strict=True,
                )
            )
    return figures


if __name__ == "__main__":
    run_benchmark("The default network: compiled code beside torch", measure)
