"""What policies saw in the past, and how they go on without the columns that are gone.

Up to version 3 of the checkpoints, some columns of a replica carried nothing: they were always 0,
or equal to another column. A policy keeps its choices without them: the weights of a copy are added
to those of its original, those of a constant had nothing to weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import IncompatibleState
from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.state import StateDict

if TYPE_CHECKING:
    from torch import Tensor

# fmt: off
_ALWAYS = (
    "waiting", "running", "decoding", "pending_prefill_tokens", "context_tokens", "kv_blocks_total",
    "restarts", "oldest_wait_s", "mean_wait_s", "generated_per_request",
    "kv_fraction_after_prompt", "batch_fill", "outstanding", "pending_prefill", "context",
    "kv_fraction", "predicted_ttft_s", "predicted_latency_s", "outstanding_gap",
    "pending_prefill_gap", "context_gap", "kv_fraction_gap", "predicted_ttft_s_gap",
    "predicted_latency_s_gap",
)
_ORACLE = ("remaining_output_tokens", "remaining_output_gap")
_HISTORY = (
    "outstanding_delta", "outstanding_ema", "outstanding_trend", "outstanding_variance",
    "outstanding_peak", "outstanding_low",
)
_SLOT = ("age_s", "prompt_tokens", "processed_tokens", "remaining_tokens")
_COMMON = (
    "prompt_tokens", "log_prompt", "outstanding_per_replica", "waiting_per_replica",
    "min_pending_prefill_tokens", "min_predicted_latency_s", "qps", "latency_s", "ttft_s",
    "completions_per_arrival", "balance",
)
_COMMON_ORACLE = ("output_tokens",)
_COMMON_HISTORY = ("qps_ema", "qps_trend", "qps_variance")
# fmt: on
_MOST_SLOTS = 32

_COPIES = {
    "pending_prefill": "pending_prefill_tokens",
    "context": "context_tokens",
    "queue0_age_s": "oldest_wait_s",
} | {f"queue{slot}_remaining_tokens": f"queue{slot}_prompt_tokens" for slot in range(_MOST_SLOTS)}
"""What is gone because it equalled another column."""
_ZEROS = {f"queue{slot}_processed_tokens" for slot in range(_MOST_SLOTS)}
"""What is gone because it was always 0."""

_FIRST_LAYER = "replica_input.weight"
_ROUNDING = 1e-6


@dataclass(frozen=True)
class PastObservation:
    """A past observation: the names of its replica columns, and the digest of what is left."""

    replica: tuple[str, ...]
    schema: str

    @property
    def kept(self) -> list[int]:
        """The columns that are left."""
        return [i for i, name in enumerate(self.replica) if name not in _COPIES.keys() | _ZEROS]

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Pairs of a column that is gone and the one it equalled."""
        place = self.replica.index
        return [(i, place(_COPIES[n])) for i, n in enumerate(self.replica) if n in _COPIES]

    @property
    def zeros(self) -> list[int]:
        """The columns that are gone because they were always 0."""
        return [i for i, name in enumerate(self.replica) if name in _ZEROS]


def left_of(replica: Sequence[str]) -> tuple[str, ...]:
    """Return the names of replica columns without those that are gone."""
    return tuple(name for name in replica if name not in _COPIES.keys() | _ZEROS)


@cache
def _pasts() -> dict[str, PastObservation]:
    """Return every past observation by its digest."""
    found = {}
    for oracle, history, slots in product((0, 1), (0, 1), range(_MOST_SLOTS + 1)):
        queues = [f"queue{slot}_{name}" for slot in range(slots) for name in _SLOT]
        replica = (*_ALWAYS, *_ORACLE * oracle, *_HISTORY * history, *queues)
        common = (*_COMMON, *_COMMON_ORACLE * oracle, *_COMMON_HISTORY * history)
        present = ObservationSchema(left_of(replica), common, ()).digest()
        found[ObservationSchema(replica, common, ()).digest()] = PastObservation(replica, present)
    return found


def past_observation(schema: str) -> PastObservation | None:
    """Return the past observation of a digest; None if it is of the present, or of none."""
    return _pasts().get(schema)


def present_digest(schema: str) -> str:
    """Return the digest of what is left of an observation."""
    past = past_observation(schema)
    return schema if past is None else past.schema


def migrate_policy(state: Any) -> Any:
    """Return a policy's state for the present observation; one that fits already as it is.

    Raises:
        IncompatibleState: its columns are not what they were in any version of this program.
    """
    past = past_observation(state["schema"]) if _is_policy(state) else None
    if past is None:
        return state
    _check_columns(state["replica_statistics"], past)
    statistics = state["replica_statistics"]
    return {
        **state,
        "schema": past.schema,
        "network": {
            name: _merged(weight, past) if name == _FIRST_LAYER else weight
            for name, weight in state["network"].items()
        },
        "replica_statistics": {
            **statistics,
            "mean": statistics["mean"][past.kept],
            "squares": statistics["squares"][past.kept],
        },
    }


def migrate_rows(
    replica: tuple[str, ...], rows: NDArray[np.float32]
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Return the names and rows [..., F] of recorded features that are left.

    Raises:
        IncompatibleState: what is gone is not what it was in any version of this program.
    """
    past = PastObservation(replica, "")
    for gone, original in past.copies:
        if not np.array_equal(rows[..., gone], rows[..., original]):
            raise _no_past(replica[gone], f"equal {replica[original]}")
    for gone in past.zeros:
        if rows[..., gone].any():
            raise _no_past(replica[gone], "be 0")
    return left_of(replica), np.ascontiguousarray(rows[..., past.kept])


def migrate_training(tree: StateDict) -> StateDict:
    """Return a checkpoint's tree whose policy, optimizer and rollout know what is left alone.

    Raises:
        IncompatibleState: see ``migrate_policy``.
        LookupError: the tree lacks something.
    """
    learner, rollout = tree["learner"], tree["rollout"]
    policy = learner["policy"]
    past = past_observation(policy["schema"])
    if past is None:
        return tree
    updater, network = dict(learner["updater"]), policy["network"]
    if (reference := updater["reference"]) is not None:
        updater["reference"] = _in_flat(reference, network, lambda w: _merged(w, past))
    if (adamw := updater["adamw"]) is not None:
        # The gradients of a copy and its original are equal, and so are their moments.
        updater["adamw"] = adamw | {
            name: _in_flat(adamw[name], network, lambda w: w[:, past.kept])
            for name in ("exp_avg", "exp_avg_sq")
        }
    rows, pending = rollout["buffer"]["rows"], rollout["pending"]
    rows = {**rows, "replicas": rows["replicas"][..., past.kept]}
    if pending is not None:
        pending = {**pending, "replicas": pending["replicas"][..., past.kept]}
    return {
        **tree,
        "learner": {**learner, "policy": migrate_policy(policy), "updater": updater},
        "rollout": {**rollout, "buffer": {**rollout["buffer"], "rows": rows}, "pending": pending},
    }


def _is_policy(state: Any) -> bool:
    parts = ("schema", "network", "replica_statistics")
    return isinstance(state, dict) and all(part in state for part in parts)


def _check_columns(statistics: StateDict, past: PastObservation) -> None:
    """Raise ``IncompatibleState`` unless copies have their originals' statistics, and zeros none.

    Equal statistics make equal features of equal numbers, so that weights may be added.
    """
    for name in ("mean", "squares"):
        values: Tensor = statistics[name]
        for gone, original in past.copies:
            if abs(values[gone] - values[original]) > _ROUNDING * abs(values[original]):
                raise _no_past(past.replica[gone], f"equal {past.replica[original]}")
        for gone in past.zeros:
            if values[gone] != 0.0:
                raise _no_past(past.replica[gone], "be 0")


def _no_past(column: str, should: str) -> IncompatibleState:
    return IncompatibleState(
        f"it is of an earlier version, whose feature {column} should always {should}; here it does "
        "not, so that nothing can take its place: train or collect anew"
    )


def _merged(weight: Tensor, past: PastObservation) -> Tensor:
    """Return the first layer's weights [H, F] for what is left, giving the same sums."""
    merged = weight.clone()
    for gone, original in past.copies:
        merged[:, original] += weight[:, gone]
    return merged[:, past.kept]


def _in_flat(flat: Tensor, network: StateDict, change: Any) -> Tensor:
    """Return all parameters in one tensor, with the first layer's weights changed."""
    import torch  # takes seconds; those who only read manifests do without

    sizes = [weight.numel() for weight in network.values()]
    parts = list(flat.split(sizes))
    first = list(network).index(_FIRST_LAYER)
    parts[first] = change(parts[first].view_as(network[_FIRST_LAYER])).reshape(-1)
    return torch.cat(parts)
