"""Prompt and output lengths like those of the Azure LLM inference trace of 2023."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidur_ext.workload import azure_2023 as fit

Tokens = NDArray[np.int64]


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
        _at_rank(prompt_rank, fit.CONVERSATION_PROMPT),
        _at_rank(output_rank, fit.CONVERSATION_OUTPUT),
    )


def _at_rank(rank: NDArray[np.float64], tokens: tuple[int, ...]) -> Tokens:
    """Interpolate a quantile table between its points, in the logarithm of the tokens."""
    return _whole(np.exp(np.interp(rank, fit.PROBABILITIES, np.log(tokens))))


def _code_lengths(rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Draw a Weibull prompt, capped at the context limit, and a shifted lognormal output."""
    prompt = fit.CODE_PROMPT_SCALE * rng.weibull(fit.CODE_PROMPT_SHAPE, count)
    excess = np.exp(fit.CODE_OUTPUT_MU + fit.CODE_OUTPUT_SIGMA * rng.standard_normal(count))
    output = np.clip(fit.CODE_OUTPUT_SHIFT + excess, *fit.CODE_OUTPUT_RANGE)
    return _whole(np.minimum(prompt, fit.CODE_PROMPT_LIMIT)), _whole(output)


def _whole(tokens: NDArray[np.float64]) -> Tokens:
    return np.maximum(np.rint(tokens), 1.0).astype(np.int64)
