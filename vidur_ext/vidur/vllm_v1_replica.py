"""vLLM's V1 scheduler in the seat of Vidur's replica scheduler."""

# Vidur makes flags of the annotations themselves: they must be types, so this module does not
# postpone their evaluation.
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vidur.config import BaseReplicaSchedulerConfig
from vidur.entities import Batch
from vidur.scheduler.replica_scheduler.base_replica_scheduler import BaseReplicaScheduler

from ppo_scheduler.errors import UserError
from vidur_ext.vidur.requests import RestartableRequest
from vidur_ext.vidur.types import OwnReplicaSchedulerType
from vidur_ext.vidur.vllm_v1.scheduler import Limits, Request, Scheduler, Step


@dataclass
class VllmV1SchedulerConfig(BaseReplicaSchedulerConfig):
    """Flags of the replica scheduler ``vllm_v1``; ``batch_size_cap`` is vLLM's ``max_num_seqs``."""

    chunk_size: int = field(
        default=512, metadata={"help": "Tokens in one batch at most: max_num_batched_tokens."}
    )

    @staticmethod
    def get_type() -> Any:
        """Return the type key."""
        return OwnReplicaSchedulerType.VLLM_V1


class VllmV1ReplicaScheduler(BaseReplicaScheduler):
    """Lets ``vllm_v1.Scheduler`` form the batches, and keeps Vidur's requests in step with it.

    Raises:
        UserError: the replica has pipeline stages.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._num_stages != 1:
            raise UserError(
                f"vllm_v1 replicas have one pipeline stage, not {self._num_stages}: set "
                "--replica_config_num_pipeline_stages 1, or choose another "
                "--replica_scheduler_config_type"
            )
        cache = self._cache_config
        self._limits = Limits(
            num_blocks=int(cache.num_blocks),
            block_size=cache.block_size,
            max_num_seqs=self._config.batch_size_cap,
            max_num_batched_tokens=self._config.chunk_size,
            prefix_caching=cache.enable_prefix_caching,
            watermark=cache.watermark_blocks_fraction,
        )
        self._watermark_blocks = self._limits.watermark_blocks
        self._scheduler = Scheduler(self._limits)
        self._step = Step()
        self._vidurs: dict[Request, Any] = {}
        """Vidur's request behind each of ours that is not finished."""
        self._unique_blocks = 0

    @property
    def num_pending_requests(self) -> int:
        """Requests that wait."""
        return len(self._scheduler.waiting)

    def get_pending_requests(self) -> list[Any]:
        """Return the requests that wait, in their order."""
        return [self._vidurs[request] for request in self._scheduler.waiting]

    def is_empty(self) -> bool:
        """Tell whether every request is finished."""
        return not self._vidurs

    def add_request(self, request: Any) -> None:
        """Queue a request."""
        ours = Request(
            prompt_tokens=request.num_prefill_tokens,
            output_tokens=request.num_decode_tokens,
            identities=self._identities(request),
        )
        self._vidurs[ours] = request
        self._scheduler.add(ours)

    def count_found(self, identities: Sequence[int]) -> tuple[int, int]:
        """Return how many of the first blocks of a text are in the prefix cache, and in use."""
        pool = self._scheduler.pool
        found = pool.find(identities)
        return len(found), len(found) - pool.count_unused(found)

    def on_batch_end(self, batch: Any) -> None:
        """Take in what the batch has brought about; its requests know it already."""
        super().on_batch_end(batch)
        for request in self._scheduler.update(self._step):
            assert self._vidurs.pop(request).completed
        self._count_blocks()

    def _get_next_batch(self, time: float) -> Any:
        self._step = self._scheduler.schedule()
        for request in self._step.preempted:
            _begin_again(self._vidurs[request], request.known_tokens)
        for request, found_tokens in self._step.admitted:
            _skip(self._vidurs[request], found_tokens)
        self._count_blocks()
        if not self._step.scheduled:
            return None
        return Batch(
            self._replica_id,
            [self._vidurs[request] for request, _ in self._step.scheduled],
            [tokens for _, tokens in self._step.scheduled],
            # What attention reads: tokens found in the cache as well as those of this step.
            [request.computed_tokens for request, _ in self._step.scheduled],
        )

    def _count_blocks(self) -> None:
        """Let routers see the blocks in use; cached text that nobody uses leaves a block free."""
        self._num_allocated_blocks = usable_blocks(self) - self._scheduler.pool.unused

    def _identities(self, request: Any) -> Sequence[int]:
        """Return what the request's blocks hold; without a known text, what no other holds."""
        if isinstance(request, RestartableRequest) and request.identities is not None:
            return request.identities(self._limits.block_size)
        blocks = request.total_tokens // self._limits.block_size
        self._unique_blocks += blocks
        # Known texts have the numbers from 0 on.
        return range(-self._unique_blocks, blocks - self._unique_blocks)


def usable_blocks(scheduler: Any) -> int:
    """Return the KV blocks that a replica's requests can have: vLLM gives one of its own to nobody.

    Args:
        scheduler: a replica scheduler of any kind.
    """
    spared = 1 if isinstance(scheduler, VllmV1ReplicaScheduler) else 0
    return int(scheduler._cache_config.num_blocks) - spared


def _skip(request: Any, tokens: int) -> None:
    """Let tokens count as processed that were found in the cache."""
    if not request.num_restarts:
        request.found_tokens = tokens
    request._num_processed_tokens = tokens
    request._num_stage_processed_tokens = tokens


def _begin_again(request: Any, known_tokens: int) -> None:
    """Preempt Vidur's request: all that is known of its text, answer included, is its prompt.

    Vidur's ``restart`` takes the tokens so far for the prompt, which are fewer while the prompt is
    being computed: its own schedulers reserve whole prompts.
    """
    total = request.total_tokens
    request.restart()
    request._num_prefill_tokens = known_tokens
    request._num_decode_tokens = total - known_tokens
    request._num_stage_processed_tokens = 0
    request._is_prefill_stage_complete = False
