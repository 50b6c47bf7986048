"""Prompt and output lengths fitted to the Azure LLM inference trace of 2023.

Conversation: quantiles of the 19,366 requests of ``AzureLLMInferenceTrace_conv.csv`` (Azure public
dataset, 2023; mean 1155 prompt and 211 output tokens). Prompt and output are drawn independently:
their rank correlation in the trace is 0.07.

Code: lognormal distributions with the median and mean that are published of the code trace
(prompt 1500 and 2048, output 13 and 28 tokens: Patel et al., "Splitwise", ISCA 2024, section III,
and the Azure public dataset). sigma = sqrt(2 ln(mean / median)).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_QUANTILES = np.array(
    [
        *(0.0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
        *(0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 1.0),
    ]
)
_CONVERSATION_PROMPT = np.array(
    [
        *(2, 17, 29, 120, 181, 207, 372, 387, 396, 403, 414, 703, 984, 1020, 1045, 1071, 1097),
        *(1130, 1189, 1315, 1876, 2734, 4083, 4092, 4142, 4831, 6179, 14050),
    ]
)
_CONVERSATION_OUTPUT = np.array(
    [
        *(7, 14, 16, 28, 41, 54, 67, 77, 85, 91, 96, 103, 113, 129, 151, 177, 217, 384, 395),
        *(400, 411, 424, 451, 522, 601, 643, 954, 1000),
    ]
)
_CODE_PROMPT = (1500.0, 2048.0)
_CODE_OUTPUT = (13.0, 28.0)

Tokens = NDArray[np.int64]


def draw_lengths(
    rng: np.random.Generator, count: int, code_fraction: float
) -> tuple[Tokens, Tokens]:
    """Return prompt and output lengths [count] of a mix of conversations and code requests."""
    is_code = rng.random(count) < code_fraction
    prompt = np.where(
        is_code,
        _lognormal(rng, count, *_CODE_PROMPT),
        np.interp(rng.random(count), _QUANTILES, _CONVERSATION_PROMPT),
    )
    output = np.where(
        is_code,
        _lognormal(rng, count, *_CODE_OUTPUT),
        np.interp(rng.random(count), _QUANTILES, _CONVERSATION_OUTPUT),
    )
    return _whole(prompt), _whole(output)


def _lognormal(
    rng: np.random.Generator, count: int, median: float, mean: float
) -> NDArray[np.float64]:
    sigma = math.sqrt(2.0 * math.log(mean / median))
    return rng.lognormal(math.log(median), sigma, count)


def _whole(tokens: NDArray[np.float64]) -> Tokens:
    return np.maximum(np.rint(tokens), 1.0).astype(np.int64)
