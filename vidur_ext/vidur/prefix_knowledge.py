"""What a router expects Vidur's replicas to have of a prompt in their prefix caches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from vidur.events import BaseEvent
from vidur.types import EventType

from ppo_scheduler.observation import Floats


class Found(NamedTuple):
    """What of a prompt is expected in each replica's prefix cache [tokens], float64 [R].

    in_use: of these tokens, those in blocks that running requests use.
    """

    tokens: Floats
    in_use: Floats


class PrefixKnowledge(ABC):
    """Says of each arriving request how much of its prompt each replica is expected to have."""

    delay_s = 0.0
    """How old that is."""

    @abstractmethod
    def found(self, request: Any) -> Found:
        """Return what is expected of a request's prompt."""

    @abstractmethod
    def assign(self, replica: int, request: Any) -> None:
        """Let a request be sent to a replica."""


class ReportedCaches(PrefixKnowledge):
    """Asks the replicas' caches, as they were ``delay_s`` before."""

    def __init__(self, replica_schedulers: Sequence[Any], block_size: int, delay_s: float) -> None:
        self.delay_s = delay_s
        self._schedulers = replica_schedulers
        self._block_size = block_size
        self._reported: dict[int, Found] = {}

    def report(self, request: Any) -> None:
        """Let the present caches be those that the decision on a request knows."""
        self._reported[request._id] = self._ask(request)

    def found(self, request: Any) -> Found:
        """See ``PrefixKnowledge``."""
        return self._reported.pop(request._id) if self.delay_s else self._ask(request)

    def assign(self, replica: int, request: Any) -> None:
        """Nothing follows from it before the replica reports it."""

    def _ask(self, request: Any) -> Found:
        text = full_blocks(request, self._block_size, request._num_prefill_tokens - 1)
        blocks = [scheduler.count_found(text) for scheduler in self._schedulers]
        found, in_use = np.array(blocks, dtype=np.float64).T * self._block_size
        return Found(found, in_use)


class SentPrompts(PrefixKnowledge):
    """Remembers the blocks of the prompts that each replica was sent, those of late at most.

    Which of them are in use it does not know.

    Args:
        capacity: blocks that are remembered of each replica.
    """

    def __init__(self, num_replicas: int, block_size: int, capacity: int) -> None:
        self._block_size = block_size
        self._capacity = capacity
        self._sent: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(num_replicas)]
        """Identities of blocks per replica, in the order in which they are forgotten."""

    def found(self, request: Any) -> Found:
        """See ``PrefixKnowledge``."""
        text = full_blocks(request, self._block_size, request._num_prefill_tokens - 1)
        found = np.zeros(len(self._sent))
        for replica, sent in enumerate(self._sent):
            for identity in text:
                if identity not in sent:
                    break
                found[replica] += self._block_size
        return Found(found, np.zeros(len(self._sent)))

    def assign(self, replica: int, request: Any) -> None:
        """Remember all of a prompt; of what was sent at once, the end is forgotten first."""
        sent = self._sent[replica]
        for identity in reversed(
            full_blocks(request, self._block_size, request._num_prefill_tokens)
        ):
            sent[identity] = None
            sent.move_to_end(identity)
        while len(sent) > self._capacity:
            sent.popitem(last=False)


def full_blocks(request: Any, block_size: int, tokens: int) -> Sequence[int]:
    """Return the identities of the blocks that the first tokens of a request's text fill.

    Nobody knows a text without identities again.
    """
    if getattr(request, "identities", None) is None:
        return ()
    text: Sequence[int] = request.identities(block_size)[: tokens // block_size]
    return text


def knowledge_of(cluster: Any, replica_schedulers: Sequence[Any]) -> PrefixKnowledge | None:
    """Return what a router knows by Vidur's ``ClusterConfig``; None: nothing."""
    block_size = cluster.cache_config.block_size
    if cluster.prefix_knowledge == "exact":
        return ReportedCaches(replica_schedulers, block_size, cluster.kv_event_delay_s)
    if cluster.prefix_knowledge == "approximate":
        return SentPrompts(len(replica_schedulers), block_size, cluster.prefix_index_blocks)
    return None


class ReportEvent(BaseEvent):
    """The instant whose caches the decision on a later request knows; see ``SignalEvent``."""

    def __init__(self, time: float, caches: ReportedCaches, request: Any) -> None:
        super().__init__(time, EventType.REQUEST_ARRIVAL)
        self._caches = caches
        self._request = request

    def handle_event(self, scheduler: Any, metrics_store: Any) -> list[Any]:
        """Look into the caches; nothing follows from it."""
        self._caches.report(self._request)
        return []
