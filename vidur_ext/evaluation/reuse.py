"""What a cluster made of what requests have in common: prefixes, and the turns of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.workload.prefix_hits import hit_tokens
from vidur_ext.workload.request_table import RequestTable

TURNS = ("first turn", "second turn", "later turns")
"""The turns that times to first token are told apart by."""

_BLOCK_TOKENS = 16
"""What is repeated is counted in blocks of vLLM's default size."""


@dataclass(frozen=True)
class Reuse:
    """Sums and means over the counted requests.

    Attributes:
        prompt_tokens: of all prompts.
        found_tokens: of these, in a prefix cache when the request was first scheduled.
        recomputed_tokens: of these, computed though an earlier request had said the same; in whole
            blocks of 16 tokens. What preempted requests compute again does not count.
        preemptions: how often requests had to begin again.
        ttft_s: mean time to first token of each of ``TURNS`` [s], None without any; requests
            without a session are first turns.
        turns: requests in each of ``TURNS``.
        fairness: Jain's index of the sessions' mean times to first token: 1 if all wait equally
            long, 1/n if one of n sessions waits alone. None without sessions.
    """

    prompt_tokens: int
    found_tokens: int
    recomputed_tokens: int
    preemptions: int
    ttft_s: tuple[float | None, ...]
    turns: tuple[int, ...]
    fairness: float | None

    @property
    def hit_rate(self) -> float:
        """Found tokens / prompt tokens."""
        return self.found_tokens / self.prompt_tokens

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        return {
            **vars(self),
            "hit_rate": self.hit_rate,
            "ttft_s": list(self.ttft_s),
            "turns": list(self.turns),
        }


def reuse_of(run: RunResult, first: int) -> Reuse:
    """Return what became of requests ``first`` and later."""
    table, found = run.table, run.found_tokens[first:]
    ttft = (run.prefill_completed_at - run.arrived_at)[first:]
    missed = repeated_tokens(table)[first:] - found
    sessions = table.sessions
    turn = np.zeros(len(table), dtype=np.int64) if sessions is None else sessions.turn
    kind = np.minimum(turn[first:], len(TURNS) - 1)
    counts = np.bincount(kind, minlength=len(TURNS))
    sums = np.bincount(kind, weights=ttft, minlength=len(TURNS))
    return Reuse(
        prompt_tokens=int(table.prefill_tokens[first:].sum()),
        found_tokens=int(found.sum()),
        recomputed_tokens=int(np.maximum(missed, 0).sum()),
        preemptions=int(run.preemptions[first:].sum()),
        ttft_s=tuple(float(s / n) if n else None for s, n in zip(sums, counts, strict=True)),
        turns=tuple(counts.tolist()),
        fairness=None if sessions is None else _fairness(sessions.session[first:], ttft),
    )


def pooled_reuse(each: Sequence[Reuse]) -> Reuse:
    """Return that of several runs; fairness is the mean of their own."""
    turns = np.sum([one.turns for one in each], axis=0)
    sums = np.sum([[n * (s or 0.0) for s, n in zip(one.ttft_s, one.turns, strict=True)]
                   for one in each], axis=0)  # fmt: skip
    fairness = [one.fairness for one in each if one.fairness is not None]
    return Reuse(
        prompt_tokens=sum(one.prompt_tokens for one in each),
        found_tokens=sum(one.found_tokens for one in each),
        recomputed_tokens=sum(one.recomputed_tokens for one in each),
        preemptions=sum(one.preemptions for one in each),
        ttft_s=tuple(float(s / n) if n else None for s, n in zip(sums, turns, strict=True)),
        turns=tuple(turns.tolist()),
        fairness=float(np.mean(fairness)) if fairness else None,
    )


@lru_cache(maxsize=64)  # every scheduler of a comparison meets the same workloads
def repeated_tokens(table: RequestTable) -> NDArray[np.int64]:
    """Return the tokens [N] with which each prompt repeats an earlier request, in whole blocks."""
    if table.prompts is None:
        return np.zeros(len(table), dtype=np.int64)
    return hit_tokens(table, _BLOCK_TOKENS)


def _fairness(session: NDArray[np.int64], ttft: NDArray[np.float64]) -> float:
    """Return Jain's index (Jain, Chiu, Hawe 1984) of the sessions' mean TTFT."""
    _, whose = np.unique(session, return_inverse=True)
    means = np.bincount(whose, weights=ttft) / np.bincount(whose)
    return float(means.sum() ** 2 / (len(means) * (means**2).sum()))
