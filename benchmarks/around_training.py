"""What surrounds a training, on Vidur and on the compiled engine: demonstrations and validation.

Both engines demonstrate the default config's teachers at its load levels, Vidur in two processes,
and validate one policy, without training it, on workloads of 512 requests. Wall-clock time, whole
calls: reading the config, building simulations and starting processes are part of them. The
compiled engine's first call, which loads machine code or compiles it, is timed by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from harness import run_benchmark

from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.seeding import Purpose, torch_seed
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.validation import Validation
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.teachers import collect_demonstrations

_ENGINES = ("vidur", "compiled")
_WORKLOADS = (1, 8)
Result = TypeVar("Result")


def _timed(call: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def _config(engine: str, requests: int) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "simulation": {"engine": engine},
            "parallel_training": {"num_envs": 1, "num_workers": 2},
            "ppo_config": {"advantage": "gae"},
            "warmstart": {"method": "imitation", "demo_requests": requests},
        }
    )


def _demonstrate(requests: int) -> tuple[dict[str, float], Demonstrations]:
    def collect(engine: str) -> tuple[float, Demonstrations]:
        config = _config(engine, requests)
        return _timed(lambda: collect_demonstrations(config, lambda line: None))

    first_s, _ = collect("compiled")
    vidur_s, theirs = collect("vidur")
    compiled_s, ours = collect("compiled")
    return {
        "demonstrations": float(len(ours)),
        "demonstrations.vidur_s": vidur_s,
        "demonstrations.compiled_first_s": first_s,
        "demonstrations.compiled_s": compiled_s,
        "demonstrations.speedup": vidur_s / compiled_s,
        "demonstrations.other_choices": float(np.count_nonzero(ours.action != theirs.action)),
        "demonstrations.largest_difference": float(np.abs(ours.replicas - theirs.replicas).max()),
    }, ours


def _validate(policy: RoutingPolicy, workloads: int) -> dict[str, float]:
    seconds, latency = {}, {}
    for engine in _ENGINES:
        section = CheckpointingSection(validation_seeds=workloads, validation_requests=512)
        update = {"checkpointing": section}
        validation = Validation(_config(engine, 512).model_copy(update=update))
        call = partial(validation.score, policy, 0, 0)
        call()
        seconds[engine], score = _timed(call)
        latency[engine] = score.e2e_s
    name = f"validation_{workloads}x512"
    return {
        **{f"{name}.{engine}_s": seconds[engine] for engine in _ENGINES},
        f"{name}.speedup": seconds["vidur"] / seconds["compiled"],
        f"{name}.relative_difference": abs(latency["compiled"] / latency["vidur"] - 1.0),
    }


def measure(quick: bool) -> dict[str, float]:
    """Return the seconds of both engines, and how their results differ."""
    torch.set_num_threads(1)
    figures, demonstrations = _demonstrate(512 if quick else 4096)
    config = _config("compiled", 512)
    schema = observation_schema(config.observation)
    policy = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    policy.initialize(torch_seed(config.training.seed, Purpose.NETWORK_INIT))
    policy.collect(demonstrations.observation())
    for workloads in _WORKLOADS[:1] if quick else _WORKLOADS:
        figures |= _validate(policy, workloads)
    return figures


if __name__ == "__main__":
    run_benchmark("Demonstrations and validation on both engines", measure)
