"""An endless synthetic stream with lengths like those of the Azure LLM inference trace of 2023."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.workload import azure_2023 as fit
from vidur_ext.workload.quantiles import at_ranks, whole
from vidur_ext.workload.request_table import RequestTable, Tokens, limit_tokens
from vidur_ext.workload.stream import check_drawn, check_window, to_seconds, to_ticks


def draw_lengths(
    rng: np.random.Generator, count: int, code_fraction: float
) -> tuple[Tokens, Tokens]:
    """Return prompt and output tokens [count] of conversations mixed with code requests.

    Whatever ``code_fraction``, the same numbers are drawn: another mix changes which requests are
    code, not how long the others are.
    """
    is_code = rng.random(count) < code_fraction
    conversation = _conversation_lengths(rng, count)
    code = _code_lengths(rng, count)
    prompt, output = (
        np.where(is_code, mine, other) for mine, other in zip(code, conversation, strict=True)
    )
    return prompt, output


def _conversation_lengths(rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Draw a pair of rank classes, a rank within each, and the lengths at these ranks.

    A checkerboard copula: the classes carry the dependence, the quantile tables the marginals.
    """
    joint = np.array(fit.CONVERSATION_JOINT)
    cumulative = np.cumsum(joint) / joint.sum()
    cell = np.searchsorted(cumulative, rng.random(count), side="right")
    prompt_class, output_class = np.divmod(cell, joint.shape[1])
    prompt_rank = (prompt_class + rng.random(count)) / joint.shape[0]
    output_rank = (output_class + rng.random(count)) / joint.shape[1]
    return (
        whole(at_ranks(prompt_rank, fit.PROBABILITIES, fit.CONVERSATION_PROMPT)),
        whole(at_ranks(output_rank, fit.PROBABILITIES, fit.CONVERSATION_OUTPUT)),
    )


def _code_lengths(rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Draw a Weibull prompt, capped at the context limit, and a shifted lognormal output."""
    prompt = fit.CODE_PROMPT_SCALE * rng.weibull(fit.CODE_PROMPT_SHAPE, count)
    excess = np.exp(fit.CODE_OUTPUT_MU + fit.CODE_OUTPUT_SIGMA * rng.standard_normal(count))
    output = np.clip(fit.CODE_OUTPUT_SHIFT + excess, *fit.CODE_OUTPUT_RANGE)
    return whole(np.minimum(prompt, fit.CODE_PROMPT_LIMIT)), whole(output)


_BLOCK = 1024


class _Block(NamedTuple):
    gap_ticks: NDArray[np.int64]
    prefill: Tokens
    decode: Tokens


@dataclass(frozen=True)
class SyntheticStream:
    """Poisson or Gamma arrivals; lengths of Azure conversations mixed with code requests.

    Requests are drawn in blocks of 1024, each from a seed of its own (seed, purpose, block,
    variant): a window costs its own blocks only, and a stream has no state to save. Another rate,
    tail or limit leaves the drawn numbers alone: the same requests arrive faster, have longer
    answers, or are cut shorter.

    Attributes:
        qps: mean arrival rate [requests/s] where the profile says 1.
        arrival: ``poisson``, or ``gamma``: gaps with coefficient of variation ``burstiness_cv``
            (shape cv^-2; above 1 is burstier than Poisson), which Poisson arrivals do not use.
        code_fraction: share of code requests, 0 to 1.
        max_tokens: prompt + output at most; see :func:`limit_tokens`.
        output_tail_index: outputs are multiplied by Pareto numbers of this index, at least 1 each;
            None: they are not.
        rate_profile: factors on ``qps``; each holds for an equal part of ``rate_period``.
        rate_period: requests after which the profile begins again; request 0 begins one.
        variant: tells streams of one seed and purpose apart.

    Raises:
        UserError: a value is out of its range.
    """

    seed: int
    purpose: Purpose
    qps: float
    arrival: str
    burstiness_cv: float
    code_fraction: float
    max_tokens: int
    output_tail_index: float | None = None
    rate_profile: tuple[float, ...] = (1.0,)
    rate_period: int = 1
    variant: int = 0

    def __post_init__(self) -> None:
        finite_rate = math.isfinite(self.qps) and self.qps > 0.0
        more = (
            ("qps", finite_rate, "a number of requests per second above 0"),
            ("code_fraction", 0.0 <= self.code_fraction <= 1.0, "a share from 0 to 1"),
            (
                "output_tail_index",
                self.output_tail_index is None or self.output_tail_index > 1.0,
                "a number above 1, or none",
            ),
            (
                "rate_profile",
                0 < len(self.rate_profile) <= self.rate_period and min(self.rate_profile) > 0.0,
                f"numbers above 0, at most rate_period={self.rate_period} of them",
            ),
        )
        check_drawn(self, more)

    @property
    def num_requests(self) -> int | None:
        """None: the stream has no end."""
        return None

    def window(self, start: int, count: int) -> RequestTable:
        """Return requests [start, start + count); time 0 is the arrival of request start - 1.

        At start 0 it is one gap before the first request.
        """
        check_window(start, count, self.num_requests)
        first, last = start // _BLOCK, (start + count - 1) // _BLOCK
        blocks = [self._block(index) for index in range(first, last + 1)]
        offset = start - first * _BLOCK
        gap_ticks, prefill, decode = (
            np.concatenate(columns)[offset : offset + count]
            for columns in zip(*blocks, strict=True)
        )
        return RequestTable(to_seconds(np.cumsum(gap_ticks)), prefill, decode)

    def _block(self, index: int) -> _Block:
        rng = generator(self.seed, self.purpose, episode=index, environment=self.variant)
        # Lengths first: how many numbers the gaps consume depends on their distribution.
        prefill, decode = draw_lengths(rng, _BLOCK, self.code_fraction)
        if self.arrival == "poisson":
            unit_gaps = rng.standard_exponential(_BLOCK)
        else:
            variance = self.burstiness_cv**2
            unit_gaps = rng.standard_gamma(1.0 / variance, _BLOCK) * variance
        if self.output_tail_index is not None:
            # Of its own stream: neither gaps nor lengths are others for it.
            [of_tail] = rng.spawn(1)
            longer = decode * (1.0 + of_tail.pareto(self.output_tail_index, _BLOCK))
            decode = whole(np.minimum(longer, self.max_tokens))
        limited = limit_tokens(prefill, decode, self.max_tokens)
        return _Block(to_ticks(unit_gaps / self._rates(index)), limited.prefill, limited.decode)

    def _rates(self, block: int) -> NDArray[np.float64]:
        """Return the arrival rate [requests/s] before each request of a block."""
        request = np.arange(block * _BLOCK, (block + 1) * _BLOCK)
        part = request % self.rate_period * len(self.rate_profile) // self.rate_period
        return self.qps * np.array(self.rate_profile)[part]
