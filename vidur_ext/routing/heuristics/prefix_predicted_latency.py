"""The least predicted latency among the replicas that have enough of the prompt.

llm-d's predicted latency (llm-d/llm-d-router@ebab68792): it keeps to replicas with at least 0.99 of
the prompt, or else 0.80, unless the time to first token there is 5 s above that of the others; of
those the least 0.8 TTFT + 0.2 TPOT, each scaled from 0 for the least one kept to 1 for the most.
Our predictor stands for its XGBoost. Left out: the headroom to objectives, the weighted draw
instead of the least, and the one of a hundred decisions in which affinity does not count.
"""

import math

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import Compared, SeenAll, found_share, share_to_keep
from vidur_ext.routing.thresholds import Thresholds

READS_PREFIXES = True


@compiled
def _seconds(seen: SeenAll, replica: int, per_token: bool) -> float:
    """Return the predicted time to first token on a replica, or that per output token after it."""
    ttft_s = seen.table[Compared.TTFT_S, replica]
    if not per_token:
        return float(ttft_s)
    after_s = seen.table[Compared.LATENCY_S, replica] - ttft_s
    return float(after_s / seen.request.expected_output_tokens)


@compiled
def _range(seen: SeenAll, scores: Floats, per_token: bool) -> tuple[float, float]:
    """Return the least and the largest of these times on the replicas in the running."""
    least, largest = math.inf, -math.inf
    for replica in range(len(scores)):
        if scores[replica] < math.inf:
            seconds = _seconds(seen, replica, per_token)
            least, largest = min(least, seconds), max(largest, seconds)
    return least, largest


@compiled
def _scaled(seconds: float, limits: tuple[float, float]) -> float:
    """Return 0 for the least and 1 for the largest."""
    least, largest = limits
    return (seconds - least) / (largest - least) if largest > least else 0.0


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    own = told.prefix_predicted_latency
    share = share_to_keep(seen, own.strict_share, own.ttft_penalty_s)
    if share == 0.0:
        share = share_to_keep(seen, own.loose_share, own.ttft_penalty_s)
    scores[:] = 0.0
    for replica in range(len(scores)):
        if found_share(seen, replica) < share:
            scores[replica] = math.inf
    ttft = _range(seen, scores, False)
    tpot = _range(seen, scores, True)
    for replica in range(len(scores)):
        scores[replica] += own.ttft_weight * _scaled(_seconds(seen, replica, False), ttft)
        scores[replica] += own.tpot_weight * _scaled(_seconds(seen, replica, True), tpot)
