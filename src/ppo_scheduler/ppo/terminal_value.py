"""What the requests still to come add to the cost of a choice.

A choice is priced by simulating it until the cluster is empty, as if nothing arrived any more. But
requests do arrive, and find the cluster as the choice has left it. What that adds is learned from
branches: the same state and the same future, gone through once for each of several choices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_scheduler.config.learner_sections import ArchitectureSection, Kernel
from ppo_scheduler.observation import Floats, Observation, ObservationSchema
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.ppo.adamw import AdamW
from ppo_scheduler.state import StateDict

_BATCH, _LEARNING_RATE = 1024, 1e-3
"""Decisions in a gradient step, and the step size at first; it falls to 0."""
_HELD_OUT = 0.15


@dataclass(frozen=True)
class Branches:
    """N decisions, and what became of K choices for each.

    observation: what was seen; costs [N, R]: as the choices were priced; choices int64 [N, K]:
    replicas; outcomes [N, K]: the same cost, with the requests that came later.
    """

    observation: Observation
    costs: Floats
    choices: NDArray[np.int64]
    outcomes: Floats

    def __len__(self) -> int:
        return len(self.costs)

    @property
    def missed(self) -> Floats:
        """What prices left out of the differences between choices [N, K]."""
        priced = np.take_along_axis(self.costs, self.choices, axis=1)
        return _differences(self.outcomes) - _differences(priced)


class TerminalValue:
    """Adds to the costs of choices what their prices leave out; learned once, then fixed.

    The network is the policy's: it sees of every replica, beside its features, what the choice
    costs, and keeps feature statistics of its own.
    """

    def __init__(
        self,
        schema: ObservationSchema,
        architecture: ArchitectureSection,
        clip: float,
        kernel: Kernel,
    ) -> None:
        priced = replace(schema, replica=(*schema.replica, "cost"))
        self._network = RoutingPolicy(priced, architecture, clip, kernel)
        self._unit = 0.0
        """Of what the network returns, in that of costs."""
        self._most = 0.0
        """The largest difference that was foreseen, in the network's unit."""

    def learn(self, branches: Branches, steps: int, seed: int) -> float:
        """Fit the network to all but the last branches; return the share that it explains of them.

        The share is of the variance of what prices left out; most of that is chance, which nothing
        can explain. What the network has learned by heart does not hold for the last branches: its
        answers are scaled down to what fits those best, and to nothing if nothing was learned.
        """
        network, rng = self._network, np.random.default_rng(seed)
        network.initialize(seed)
        seen = _with_costs(branches.observation, branches.costs)
        network.collect(seen)
        missed = branches.missed
        unit = float(missed.std()) or 1.0
        replicas, context = (torch.from_numpy(part) for part in network.normalize(seen))
        choices = torch.from_numpy(branches.choices)
        target = torch.from_numpy((missed / unit).astype(np.float32))
        held = max(1, round(len(branches) * _HELD_OUT))
        optimizer = AdamW(network.network.parameters(), learning_rate=_LEARNING_RATE)
        for step in range(steps):
            optimizer.learning_rate = _LEARNING_RATE * (1.0 - step / steps)
            rows = torch.from_numpy(rng.integers(0, len(branches) - held, _BATCH))
            error = self._explained(replicas[rows], context[rows], choices[rows]) - target[rows]
            optimizer.zero_grad()
            error.square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            foreseen = self._explained(replicas[-held:], context[-held:], choices[-held:])
        left = target[-held:]
        scale = float((foreseen * left).sum() / foreseen.square().sum().clamp(min=1e-12))
        scale = min(max(scale, 0.0), 1.0)
        self._unit, self._most = unit * scale, float(foreseen.abs().max())
        error = scale * foreseen - left
        return 1.0 - float(error.square().sum() / left.square().sum().clamp(min=1e-12))

    def _explained(self, replicas: Tensor, context: Tensor, choices: Tensor) -> Tensor:
        """Return differences [B, K] between the choices."""
        value: Tensor = self._network.network(replicas, context)[0]
        chosen = value.gather(1, choices)
        return chosen - chosen.mean(dim=1, keepdim=True)

    def add_to(self, costs: Floats, observation: Observation) -> Floats:
        """Return costs [B, R] with what they leave out; rows of NaN stay so."""
        asked = np.flatnonzero(~np.isnan(costs[:, 0]))
        corrected = costs.copy()
        if len(asked):
            seen = _with_costs(
                Observation(
                    observation.replicas[asked],
                    observation.context[asked],
                    observation.telemetry[asked],
                ),
                costs[asked],
            )
            value, _ = self._network.evaluate(self._network.normalize(seen))
            foreseen = _differences(value.double().numpy())
            corrected[asked] += self._unit * foreseen.clip(-self._most, self._most)
        return corrected

    def state_dict(self) -> StateDict:
        network = self._network.state_dict()
        return {"network": network, "unit": self._unit, "most": self._most}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore what was learned.

        Raises:
            IncompatibleState: it was made for other features or another network.
        """
        self._network.load_state_dict(state["network"])
        self._unit, self._most = state["unit"], state["most"]


def _with_costs(observation: Observation, costs: Floats) -> Observation:
    above_mean = _differences(costs)[..., None]
    return replace(observation, replicas=np.concatenate([observation.replicas, above_mean], -1))


def _differences(values: Floats) -> Floats:
    return np.asarray(values - values.mean(axis=1, keepdims=True))
