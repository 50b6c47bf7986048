"""Routing by what a gateway knows; neither torch nor Vidur is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppo_scheduler.deployed import RoutingPolicy, Snapshot
from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import TELEMETRY, Floats
from vidur_ext.gateway.origin import Origin, read_origin
from vidur_ext.routing.estimator import expected_output_tokens
from vidur_ext.routing.features import feature_rule, observation_schema
from vidur_ext.routing.view import (
    ArrivingRequest,
    ClusterSnapshot,
    Completion,
    Elapsed,
    Quantity,
    new_memory,
    new_sight,
)
from vidur_ext.vidur.observation import VidurView, write_features, write_sight


class ClusterRouter:
    """Computes the features of each arrival as in training, and asks the policy.

    It remembers the decisions so far: one per cluster, called once per request, in their order.
    """

    def __init__(self, policy: RoutingPolicy, ttft_weight: float | None = None) -> None:
        """Begin with a cluster of which nothing is remembered.

        Args:
            ttft_weight: instead of the exported config's ``lookahead.ttft_weight``, for a policy
                that sees it (``observation.objective``): the larger, the sooner first tokens come.

        Raises:
            UserError: the policy's features are not those that are computed here, or no gateway
                can know them; or it does not see the weight.
        """
        origin = read_origin(policy.origin)
        _check_features(policy, origin)
        self.num_replicas = len(origin.replicas)
        self._policy = policy
        weight = _weight(origin, ttft_weight)
        self._knows = origin.observation.prefix_knowledge != "none"
        self._rule = feature_rule(origin.observation, origin.block_size, weight)
        self._estimates = origin.estimates
        sight = new_sight(self.num_replicas, origin.observation.queue_slots)
        self._shown = VidurView(sight, self._estimates)
        self._memory = new_memory(self.num_replicas)
        self._completed = self._output_tokens = 0
        self._last: float | None = None

    @classmethod
    def load(cls, path: Path | str, ttft_weight: float | None = None) -> ClusterRouter:
        """Return a router by the policy in a file of ``vidur-ppo checkpoints export``.

        Raises:
            UserError: the file cannot be used; see ``RoutingPolicy.load`` and above.
        """
        policy = RoutingPolicy.load(path)
        try:
            return cls(policy, ttft_weight)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def route(
        self,
        cluster: ClusterSnapshot,
        prompt_tokens: int,
        completions: Sequence[Completion] = (),
        found_tokens: Sequence[float] | None = None,
        session_replica: int | None = None,
    ) -> int:
        """Return the index of the replica for the request that has just arrived.

        Args:
            cluster: as it is now; ``now`` in seconds of any clock. What only an oracle knows is 0.
            prompt_tokens: of the arriving request.
            completions: requests that were finished since the last call.
            found_tokens: of the prompt, expected in each replica's prefix cache [R].
            session_replica: where the request before it of its session was sent, -1 for a first
                one. These two are for policies that were trained with
                ``observation.prefix_knowledge``, and for no others.

        Raises:
            UserError: the cluster has another number of replicas, a number cannot be, or time runs
                backwards. Nothing is remembered of such a call.
        """
        return self._policy.route(
            self.see(cluster, prompt_tokens, completions, found_tokens, session_replica)
        )

    def see(
        self,
        cluster: ClusterSnapshot,
        prompt_tokens: int,
        completions: Sequence[Completion] = (),
        found_tokens: Sequence[float] | None = None,
        session_replica: int | None = None,
    ) -> Snapshot:
        """Return what the policy sees of an arrival, and remember it: ``route`` without a choice.

        Raises:
            UserError: as ``route``; then nothing is remembered.
        """
        self._check_cluster(cluster)
        self._check_arrival(cluster.now, prompt_tokens, completions)
        found = self._checked_found(found_tokens, prompt_tokens)
        before = self._checked_session(session_replica)
        self._remember(cluster.now, completions)
        expected = expected_output_tokens(self._estimates, self._completed, self._output_tokens)
        request = ArrivingRequest(
            cluster.now,
            prompt_tokens,
            expected,
            output_tokens=0,
            found_tokens=found,
            session_replica=before,
        )
        write_sight(self._shown.sight, cluster, request)
        if not self._knows:
            # Whoever expects nothing to be found takes all that is pending for uncached.
            table = self._shown.sight.table
            table[Quantity.UNCACHED_PREFILL_TOKENS] = table[Quantity.PENDING_PREFILL_TOKENS]
        policy = self._policy
        replicas = np.empty((self.num_replicas, len(policy.replica_features)))
        context = np.empty(len(policy.context_features))
        unseen = np.empty(len(TELEMETRY))
        write_features(self._rule, self._shown, self._memory, replicas, context, unseen)
        return Snapshot(replicas, context)

    def _check_cluster(self, cluster: ClusterSnapshot) -> None:
        table, shape = cluster.table, (len(Quantity), self.num_replicas)
        if table.shape != shape:
            raise UserError(
                f"the cluster's table is of shape {list(table.shape)}, not {list(shape)}: give "
                "every Quantity of every replica; for another number of replicas export with the "
                "--config of that cluster"
            )
        fits = np.isfinite(table) & (table >= 0.0)
        for divisor in (Quantity.KV_BLOCKS_TOTAL, Quantity.BATCH_CAPACITY):
            fits[divisor] &= table[divisor] > 0.0
        if not fits.all():
            row, replica = np.argwhere(~fits)[0]
            raise UserError(
                f"{list(Quantity)[row].label} of replica {replica} is {table[row, replica]}: a "
                "quantity is finite and not negative, and KV blocks and batches have some room"
            )

    def _check_arrival(
        self, now: float, prompt_tokens: int, completions: Sequence[Completion]
    ) -> None:
        if prompt_tokens < 1:
            raise UserError(f"prompt_tokens={prompt_tokens}: a prompt has at least one token")
        if not math.isfinite(now) or (self._last is not None and now < self._last):
            raise UserError(
                f"now={now}, and the last decision was at {self._last}: give the time of a clock "
                "that never runs backwards"
            )
        for done in completions:
            if not (0.0 <= done.ttft_s <= done.e2e_s < math.inf and done.output_tokens >= 1):
                raise UserError(
                    f"{done}: a completed request has at least one token of output, and its "
                    "latencies are finite, the one to the first token not above the whole"
                )

    def _checked_found(
        self, found_tokens: Sequence[float] | None, prompt_tokens: int
    ) -> Floats | None:
        if not self._knows and found_tokens is not None:
            raise UserError(
                "found_tokens: this policy knows nothing of prefix caches; leave it out, or give "
                "one that was trained with observation.prefix_knowledge"
            )
        if not self._knows:
            return None
        found = np.asarray(() if found_tokens is None else found_tokens, dtype=np.float64)
        if found.shape != (self.num_replicas,):
            raise UserError(
                f"found_tokens holds {found.size} numbers: this policy knows of prefix caches; "
                f"give how much of the prompt is in that of each of the {self.num_replicas} "
                "replicas"
            )
        if not ((found >= 0.0) & (found < prompt_tokens)).all():
            raise UserError(
                f"found_tokens={found.tolist()} of a prompt of {prompt_tokens}: at least one of "
                "its tokens is computed, and no number is negative"
            )
        return found

    def _checked_session(self, session_replica: int | None) -> int:
        if not self._knows and session_replica is not None:
            raise UserError(
                "session_replica: this policy does not go by sessions; leave it out, or give one "
                "that was trained with observation.prefix_knowledge"
            )
        if not self._knows:
            return -1
        if session_replica is None or not -1 <= session_replica < self.num_replicas:
            raise UserError(
                f"session_replica={session_replica}: this policy goes by sessions; give the "
                f"replica, 0 to {self.num_replicas - 1}, that the session's request before was "
                "sent to, or -1 for a first one"
            )
        return session_replica

    def _remember(self, now: float, completions: Sequence[Completion]) -> None:
        """Write what happened since the last decision, as far as features are made of it."""
        self._completed += len(completions)
        self._output_tokens += sum(done.output_tokens for done in completions)
        interval = self._shown.sight.interval
        interval[Elapsed.DURATION_S] = 0.0 if self._last is None else now - self._last
        interval[Elapsed.COMPLETIONS] = len(completions)
        interval[Elapsed.E2E_SUM_S] = sum(done.e2e_s for done in completions)
        interval[Elapsed.TTFT_SUM_S] = sum(done.ttft_s for done in completions)
        self._last = now


def _weight(origin: Origin, given: float | None) -> float:
    if given is None:
        return origin.ttft_weight
    if not origin.observation.objective:
        raise UserError(
            f"ttft_weight={given:g}: this policy does not see it; give one that was taught with "
            "observation.objective true (see vidur-ppo pretrain --also), or leave it out"
        )
    if not 0.0 <= given < math.inf:
        raise UserError(f"ttft_weight={given}: a weight is finite and not negative")
    return given


def _check_features(policy: RoutingPolicy, origin: Origin) -> None:
    schema = observation_schema(origin.observation)
    seen = [
        tuple(f.name for f in each) for each in (policy.replica_features, policy.context_features)
    ]
    if seen != [schema.replica, schema.context]:
        raise UserError(
            "its features are not those that this version computes: use the version that exported "
            "it, or export it again"
        )
    if origin.observation.output_length == "oracle":
        raise UserError(
            "it sees true output lengths, which no gateway knows: train a policy with "
            'observation.output_length "hidden"'
        )
