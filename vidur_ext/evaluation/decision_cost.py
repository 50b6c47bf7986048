"""What a decision of a policy costs, which the speed of a simulation does not tell."""

from __future__ import annotations

import time

import numpy as np

from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy

_ROUNDS = 20
_DECISIONS = 20
"""Per round; the first round warms up and does not count."""


def decision_cost_us(policy: RoutingPolicy, num_replicas: int) -> float:
    """Return the median cost of one decision for one request [µs], here and now.

    It is normalisation and a pass through the network, in torch; what features cost is left out.
    """
    schema = policy.schema
    observation = Observation(
        replicas=np.zeros((1, num_replicas, len(schema.replica))),
        context=np.zeros((1, len(schema.context))),
        telemetry=np.zeros((1, len(schema.telemetry))),
    )
    costs = []
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        for _ in range(_DECISIONS):
            policy.greedy(observation)
        costs.append((time.perf_counter() - started) / _DECISIONS)
    return 1e6 * float(np.median(costs[1:]))
