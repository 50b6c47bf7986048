"""An endless synthetic stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.workload.lengths import draw_lengths
from vidur_ext.workload.request_table import RequestTable, fit_into

_BLOCK = 1024


@dataclass(frozen=True)
class SyntheticStream:
    """Poisson or Gamma arrivals, conversation and code lengths.

    Requests are drawn in blocks, each from a seed of its own, so a window costs its own blocks
    only and every window sees the same requests.

    qps: mean arrivals per second; burstiness_cv: coefficient of variation of the gaps (Gamma
    only; Poisson has 1); variant: tells streams of one purpose apart.
    """

    seed: int
    purpose: Purpose
    qps: float
    arrival: str
    burstiness_cv: float
    code_fraction: float
    max_tokens: int
    variant: int = 0

    @property
    def num_requests(self) -> int | None:
        return None

    def window(self, start: int, count: int) -> RequestTable:
        first, last = start // _BLOCK, (start + count - 1) // _BLOCK
        blocks = [self._block(index) for index in range(first, last + 1)]
        part = slice(start - first * _BLOCK, start - first * _BLOCK + count)
        gaps, prefill, decode = (
            np.concatenate(columns)[part] for columns in zip(*blocks, strict=True)
        )
        return RequestTable(np.cumsum(gaps), prefill, decode)

    def _block(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        """Return gaps [s], prompt and output tokens of one block."""
        rng = generator(self.seed, self.purpose, episode=index, environment=self.variant)
        if self.arrival == "poisson":
            gaps = rng.exponential(1.0 / self.qps, _BLOCK)
        else:
            variance = self.burstiness_cv**2
            gaps = rng.gamma(1.0 / variance, variance / self.qps, _BLOCK)
        prefill, decode = draw_lengths(rng, _BLOCK, self.code_fraction)
        return gaps, *fit_into(prefill, decode, self.max_tokens)
