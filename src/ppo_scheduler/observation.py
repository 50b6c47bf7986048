"""What crosses the door between simulation and learning."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TELEMETRY = ("qps", "latency_s", "balance", "elapsed_s")
"""Telemetry every simulation must report, before the reward's components.

qps: arrival rate over the recent past [requests/s]; latency_s: mean end-to-end latency of recently
completed requests [s], NaN before the first; balance: 1 for even outstanding requests, 0 when one
replica holds them all; elapsed_s: time since the decision before [s].
"""


@dataclass(frozen=True)
class ObservationSchema:
    """Names of all columns, in order. Two models fit each other if their schemas are equal."""

    replica: tuple[str, ...]
    context: tuple[str, ...]
    telemetry: tuple[str, ...]

    def digest(self) -> str:
        """Return a digest of what the policy sees (telemetry is not seen)."""
        text = "\n".join((*self.replica, "--", *self.context))
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

    @property
    def component_columns(self) -> list[int]:
        """Columns of the telemetry that hold the components of the reward."""
        return [i for i, name in enumerate(self.telemetry) if name not in TELEMETRY]

    @property
    def reward_components(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.telemetry[column] for column in self.component_columns)


@dataclass(frozen=True)
class Observation:
    """A batch of B observations of R replicas, not normalized.

    replicas: float64 [B, R, F], one row per replica.
    context: float64 [B, C], the arriving request and the cluster as a whole.
    telemetry: float64 [B, K], what is logged and controlled on, but not seen by the policy.
    """

    replicas: Floats
    context: Floats
    telemetry: Floats
