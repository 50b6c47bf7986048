"""Which compiled rule stands for a Vidur global scheduler, and the random numbers it consumes."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose, generator, seed_sequence
from vidur_ext.engine import layout
from vidur_ext.engine.layout import Ints

ASK = -1
"""In an array of choices: the caller decides."""

_RULES = {
    "lor": layout.LOR,
    "least_outstanding": layout.LEAST_OUTSTANDING,
    "power_of_two": layout.POWER_OF_TWO,
    "least_tokens": layout.LEAST_TOKENS,
    "least_kv": layout.LEAST_KV,
    "vllm_dp": layout.VLLM_DP,
    "min_predicted_latency": layout.MIN_PREDICTED_LATENCY,
    "oracle_work": layout.ORACLE_WORK,
}
_WORDS_PER_DECISION = 4
# A draw is repeated with a probability of R / 2^32: far more than ever will be.
_SPARE_WORDS = 64


class Routing(NamedTuple):
    """A rule of ``layout``, replicas [N] for GIVEN, and the random words for the others."""

    rule: int
    choices: Ints
    words: NDArray[np.uint32]


def routing_of(
    scheduler: str,
    seed: int,
    num_requests: int,
    num_replicas: int,
    choices: Ints | None,
    rng: np.random.Generator | None = None,
) -> Routing:
    """Return how the global scheduler called ``scheduler`` routes under Vidur's ``--seed``.

    Args:
        choices: replicas [N] to take instead of the scheduler's; ASK leaves one to the caller.
        rng: breaks the ties of a heuristic of this plug-in instead of the seed's own stream.

    Raises:
        UserError: ``choices`` are not one replica per request.
    """
    none = np.zeros(0, dtype=np.uint32)
    if choices is not None:
        return Routing(layout.GIVEN, _checked(choices, num_requests, num_replicas), none)
    if scheduler in _RULES:
        stream = generator(seed, Purpose.SCHEDULER) if rng is None else rng
        words = _random_words(stream, _WORDS_PER_DECISION * num_requests + _SPARE_WORDS)
        return Routing(_RULES[scheduler], np.zeros(0, dtype=np.int64), words)
    fixed = {
        "round_robin": lambda: np.arange(num_requests, dtype=np.int64) % num_replicas,
        "always_first": lambda: np.zeros(num_requests, dtype=np.int64),
        "random": lambda: _random_choices(seed, num_requests, num_replicas),
    }
    ask: Any = lambda: np.full(num_requests, ASK, dtype=np.int64)  # noqa: E731
    return Routing(layout.GIVEN, fixed.get(scheduler, ask)(), none)


def _checked(choices: Ints, num_requests: int, num_replicas: int) -> Ints:
    given = np.array(choices)
    if given.shape != (num_requests,) or given.dtype.kind not in "iu":
        raise UserError(
            f"choices must be {num_requests} integers, one replica per request; they are "
            f"{given.dtype} of shape {given.shape}"
        )
    wrong = np.flatnonzero((given < ASK) | (given >= num_replicas))
    if len(wrong):
        raise UserError(
            f"choice {wrong[0]} is {given[wrong[0]]}; there are replicas 0 to {num_replicas - 1}, "
            f"and {ASK} asks for a decision"
        )
    return given.astype(np.int64)


def _random_words(rng: np.random.Generator, count: int) -> NDArray[np.uint32]:
    """Return the 32-bit words that a heuristic would draw: low halves of 64 bits first."""
    raw = rng.bit_generator.random_raw((count + 1) // 2)
    halves = np.stack([raw & np.uint64(0xFFFFFFFF), raw >> np.uint64(32)], axis=1)
    return halves.ravel().astype(np.uint32)


def _random_choices(seed: int, num_requests: int, num_replicas: int) -> Ints:
    """Return what Vidur's random scheduler draws in a ``VidurSimulation``."""
    state = seed_sequence(seed, Purpose.SCHEDULER).generate_state(1)
    stream = random.Random(int(state[0]))
    return np.array([stream.randint(1, num_replicas) - 1 for _ in range(num_requests)], np.int64)
