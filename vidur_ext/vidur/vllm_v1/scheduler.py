"""What vLLM's V1 scheduler decides in each step of a replica.

Behaves as vLLM 0.33 does (v1/core/sched/scheduler.py, v1/core/kv_cache_manager.py) with one kind
of attention, requests in the order of arrival, and no speculation. There is no phase of prompts and
none of answers: in each step, every request catches up with the tokens it knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from vidur_ext.vidur.vllm_v1.block_pool import BlockPool


@dataclass(frozen=True)
class Limits:
    """What a replica has, under vLLM's own names.

    ``reserve_full_prompt`` is its ``scheduler_reserve_full_isl``.
    """

    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_caching: bool = True
    reserve_full_prompt: bool = True
    watermark: float = 0.0

    @property
    def watermark_blocks(self) -> int:
        """Blocks that stay unused when a request is admitted beside others."""
        return int(self.watermark * self.num_blocks)


@dataclass(eq=False)
class Request:
    """A request and how far it has come.

    Attributes:
        identities: what each full block of prompt and answer holds, see
            ``workload.block_identities``.
        known_tokens: prompt and answer so far.
        computed_tokens: how many of these have their KV in ``blocks``, or will have by the end of
            the step.
        blocks: its KV blocks, in the order of its text.
        registered: how many of them can be found by what they hold.
    """

    prompt_tokens: int
    output_tokens: int
    identities: Sequence[int]
    known_tokens: int = field(init=False)
    computed_tokens: int = field(init=False, default=0)
    blocks: list[int] = field(init=False, default_factory=list)
    registered: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.known_tokens = self.prompt_tokens

    @property
    def finished(self) -> bool:
        """Whether the whole answer is known."""
        return self.known_tokens == self.prompt_tokens + self.output_tokens


@dataclass
class Step:
    """What is computed in one step.

    Attributes:
        scheduled: the batch: requests, and how many tokens of each are computed.
        admitted: those of them that have come from the queue, and how many of their tokens were
            found in the cache.
        preempted: requests that have gone back to the queue, in that order.
    """

    scheduled: list[tuple[Request, int]] = field(default_factory=list)
    admitted: list[tuple[Request, int]] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)


class Scheduler:
    """Forms the batches of one replica: ``schedule``, and after its computation ``update``."""

    def __init__(self, limits: Limits) -> None:
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.pool = BlockPool(limits.num_blocks)
        self._limits = limits

    def add(self, request: Request) -> None:
        """Queue a request that has arrived."""
        self.waiting.append(request)

    def schedule(self) -> Step:
        """Return the next step; it is empty if nothing can be computed."""
        step = Step()
        budget = self._continue(step, self._limits.max_num_batched_tokens)
        if not step.preempted:
            self._admit(step, budget)
        for request, tokens in step.scheduled:
            request.computed_tokens += tokens
        return step

    def update(self, step: Step) -> list[Request]:
        """End a step: those that have caught up get a token. Return those that are finished."""
        for request, _ in step.scheduled:
            if request.computed_tokens == request.known_tokens:
                request.known_tokens += 1
        finished = [request for request, _ in step.scheduled if request.finished]
        for request in finished:
            self._release(request)
        self.running = [request for request in self.running if not request.finished]
        return finished

    def _continue(self, step: Step, budget: int) -> int:
        """Schedule the running requests; return what is left of the budget of tokens.

        Where blocks are missing, the request that was admitted last gives up its own.
        """
        place = 0
        while place < len(self.running) and budget > 0:
            request = self.running[place]
            tokens = min(request.known_tokens - request.computed_tokens, budget)
            while self._missing_blocks(request, tokens) > self.pool.unused:
                last = self.running.pop()
                self._preempt(last)
                step.preempted.append(last)
                if last is request:
                    return budget
            self._allocate(request, tokens)
            step.scheduled.append((request, tokens))
            budget -= tokens
            place += 1
        return budget

    def _admit(self, step: Step, budget: int) -> None:
        """Schedule waiting requests in their order, up to the first one that does not fit."""
        while budget > 0 and self.waiting and len(self.running) < self._limits.max_num_seqs:
            request = self.waiting[0]
            hits = self._find(request)
            cached = len(hits) * self._limits.block_size
            tokens = min(request.known_tokens - cached, budget)
            kept = request.known_tokens if self._limits.reserve_full_prompt else cached + tokens
            needed = self._blocks_of(kept) - len(hits) + self.pool.count_unused(hits)
            spared = self._limits.watermark_blocks if self.running else 0
            if needed + spared > self.pool.unused:
                return
            self.pool.share(hits)
            request.blocks, request.registered = hits, len(hits)
            request.computed_tokens = cached
            self._allocate(request, tokens)
            self.running.append(self.waiting.popleft())
            step.scheduled.append((request, tokens))
            step.admitted.append((request, cached))
            budget -= tokens

    def _find(self, request: Request) -> list[int]:
        """Return cached blocks with the beginning of a request; the last token is computed anew,
        as its result is what the next one follows from.
        """
        if not self._limits.prefix_caching:
            return []
        most = (request.known_tokens - 1) // self._limits.block_size
        return self.pool.find(islice(request.identities, most))

    def _allocate(self, request: Request, tokens: int) -> None:
        """Give a request blocks for its next tokens, and register those that become full.

        They can be found from now on: whoever finds them computes after this step, or beside it.
        """
        request.blocks += self.pool.take(self._missing_blocks(request, tokens))
        if not self._limits.prefix_caching:
            return
        full = (request.computed_tokens + tokens) // self._limits.block_size
        for place in range(request.registered, full):
            self.pool.register(request.blocks[place], request.identities[place])
        request.registered = full

    def _missing_blocks(self, request: Request, tokens: int) -> int:
        return self._blocks_of(request.computed_tokens + tokens) - len(request.blocks)

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self._limits.block_size)

    def _preempt(self, request: Request) -> None:
        self._release(request)
        request.computed_tokens = 0
        self.waiting.appendleft(request)

    def _release(self, request: Request) -> None:
        self.pool.give_back(request.blocks)
        request.blocks, request.registered = [], 0
