"""Our engine, routed by the books that Dynamo's KV router keeps itself, to the letter.

``dynamo_kv`` takes the quantities that every router here sees in place of them. Read in
``lib/kv-router/src`` (``scheduling/selector/default.rs``, ``sequences/prompt_registry.rs``) of
ai-dynamo/dynamo@07a6c9ce.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ppo_scheduler.observation import Floats
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.layout import Cluster
from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.request_table import RequestTable


class Books:
    """What the router has sent to one worker and not got back."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._users: Counter[int] = Counter()
        """Requests in flight, waiting ones too, by full block of their prompts."""
        self._blocks: dict[int, list[int]] = {}
        self._uncached: dict[int, int] = {}
        """Tokens of each prompt that were not found; all of them until its first token is there."""

    def cost(self, prompt_tokens: int, blocks: list[int], found: int) -> float:
        """Return the blocks to compute, and those in use, if a request came here."""
        tokens = sum(self._uncached.values()) + prompt_tokens - found
        new = sum(block not in self._users for block in blocks)
        return max(0.0, tokens / self._block_tokens) + len(self._users) + new

    def send(self, request: int, blocks: list[int], uncached: int) -> None:
        """Note a request with the full blocks of its prompt."""
        self._users.update(blocks)
        self._blocks[request] = blocks
        self._uncached[request] = uncached

    def hear(self, now: float, first_token_at: Floats, completed_at: Floats) -> None:
        """Cross out what has happened until now; times [N], 0 of what is still to come."""
        for request in [one for one in self._uncached if 0.0 < first_token_at[one] <= now]:
            del self._uncached[request]
        for request in [one for one in self._blocks if 0.0 < completed_at[one] <= now]:
            self._users -= Counter(self._blocks.pop(request))


def routed_by_books(
    config: TrainingConfig, cluster: Cluster, table: RequestTable, seed: int
) -> RoutingEnvironments:
    """Return the served requests in an environment of its own.

    Args:
        config: shows what is found in the caches.
        seed: of the draws among equals.
    """
    assert table.prompts is not None, "requests without texts share nothing"
    size = cluster.settings.block_size
    runs = block_runs(table.prompts, np.zeros(len(table), dtype=np.int64), size)
    workers = [Books(size) for _ in range(cluster.num_replicas)]
    rng = np.random.default_rng(seed)
    envs = RoutingEnvironments(cluster, config, num_envs=1)
    envs.begin([table])
    column = envs.schema.replica.index("found_tokens")
    for request in range(len(table)):
        now, prompt = float(table.arrived_at[request]), int(table.prefill_tokens[request])
        found = envs.observation.replicas[0, :, column].astype(np.int64)
        blocks = runs.of_request(request).tolist()
        for worker in workers:
            worker.hear(now, envs.prefill_completed_at[0], envs.completed_at[0])
        costs = [
            worker.cost(prompt, blocks, int(offered))
            for worker, offered in zip(workers, found, strict=True)
        ]
        choice = int(rng.choice(np.flatnonzero(np.array(costs) == min(costs))))
        workers[choice].send(request, blocks, prompt - int(found[choice]))
        envs.step(np.array([choice]))
    return envs
