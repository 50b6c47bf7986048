"""vLLM's own V1 scheduler, driven step by step without a GPU; imports vLLM 0.33."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

Prompt = list[tuple[str, int]]
Asked = tuple[int, Prompt, int]
"""Step of arrival, prompt, output tokens."""

_LONGEST = 131_072
_HEADS, _HEAD_WIDTH = 8, 128
_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": _HEADS,
    "num_hidden_layers": 32,
    "vocab_size": 128_256,
    "max_position_embeddings": _LONGEST,
    "torch_dtype": "bfloat16",
}


def write_model(folder: Path) -> None:
    """Write what vLLM wants to know of a model, and prepare its hashes."""
    (folder / "config.json").write_text(json.dumps(_MODEL), encoding="utf-8")
    init_none_hash(sha256)


def decide(
    model: Path, config: dict[str, Any], asked: list[Asked], most_steps: int
) -> dict[str, Any]:
    """Return what vLLM decides; see ``record_vllm`` for the format."""
    run = _Run(_scheduler(model, config), config["block_size"], asked)
    while len(run.steps) < most_steps and run.step():
        pass
    return {
        "steps": run.steps,
        "cached": run.cached,
        "preempted": run.preempted,
        "resumed": run.resumed,
        "finished": run.finished,
    }


class _Run:
    """One case under way, and what has been decided so far."""

    def __init__(self, scheduler: Any, block_size: int, asked: list[Asked]) -> None:
        self.steps: list[list[list[int]]] = []
        self.cached: list[int | None] = [None] * len(asked)
        self.finished: list[int | None] = [None] * len(asked)
        self.preempted: list[list[int]] = []
        self.resumed: list[list[int]] = []
        self._scheduler = scheduler
        self._hasher = get_request_block_hasher(block_size, sha256)
        self._asked = asked
        self._arrivals = deque(enumerate(asked))
        self._answered = [0] * len(asked)
        self._tokens: dict[tuple[str, int], int] = {}

    def step(self) -> bool:
        """Let the scheduler take a step; tell whether anything can happen."""
        now = len(self.steps)
        while self._arrivals and self._arrivals[0][1][0] <= now:
            self._add(*self._arrivals.popleft())
        if not (self._arrivals or self._scheduler.has_unfinished_requests()):
            return False
        decided = self._scheduler.schedule()
        preempted = sorted(map(int, decided.preempted_req_ids or ()))
        if not (decided.num_scheduled_tokens or preempted or self._arrivals):
            return False
        self.steps.append([[int(r), n] for r, n in decided.num_scheduled_tokens.items()])
        self.preempted += [[now, request] for request in preempted]
        for new in decided.scheduled_new_reqs:
            self.cached[int(new.req_id)] = new.num_computed_tokens
        known = decided.scheduled_cached_reqs
        for name, computed in zip(known.req_ids, known.num_computed_tokens, strict=True):
            if name in known.resumed_req_ids:
                self.resumed.append([now, int(name), computed])
        self._update(decided, now)
        return True

    def _add(self, request: int, asked: Asked) -> None:
        _, prompt, output = asked
        tokens = [self._token(name, place) for name, length in prompt for place in range(length)]
        sampling = SamplingParams(max_tokens=output, ignore_eos=True)
        self._scheduler.add_request(
            Request(str(request), tokens, sampling, None, block_hasher=self._hasher)
        )

    def _update(self, decided: Any, now: int) -> None:
        """Give an answer's next token to those whose known tokens have all been computed."""
        names = list(decided.num_scheduled_tokens)
        sampled: list[list[int]] = []
        for name in names:
            request, number = self._scheduler.requests[name], int(name)
            sampled.append([])
            if request.num_computed_tokens >= request.num_tokens:
                sampled[-1].append(self._token(f"a{number}", self._answered[number]))
                self._answered[number] += 1
        place = {name: index for index, name in enumerate(names)}
        output = ModelRunnerOutput(req_ids=names, req_id_to_index=place, sampled_token_ids=sampled)
        self._scheduler.update_from_output(decided, output)
        for name in names:
            if name not in self._scheduler.requests:
                self.finished[int(name)] = now

    def _token(self, segment: str, place: int) -> int:
        """Return a token of its own for each place of each segment."""
        return self._tokens.setdefault((segment, place), len(self._tokens))


def _scheduler(model: Path, config: dict[str, Any]) -> Any:
    block_size, blocks = config["block_size"], config["num_blocks"]
    limits = SchedulerConfig(
        max_model_len=_LONGEST,
        enable_chunked_prefill=True,
        is_encoder_decoder=False,
        async_scheduling=False,
        scheduler_reserve_full_isl=config["reserve_full_prompt"],
        watermark=config["watermark"],
    )
    cache = CacheConfig(block_size=block_size, enable_prefix_caching=config["prefix_caching"])
    whole = VllmConfig(
        model_config=ModelConfig(
            model=str(model),
            skip_tokenizer_init=True,
            dtype="bfloat16",
            max_model_len=_LONGEST,
            enforce_eager=True,
        ),
        scheduler_config=limits,
        cache_config=cache,
        device_config=DeviceConfig(device="cpu"),
    )
    # Behind vLLM's checks, which adapt limits to the device and refuse strange ones.
    cache.block_size = block_size
    limits.max_num_seqs = config["max_num_seqs"]
    limits.max_num_batched_tokens = config["max_num_batched_tokens"]
    cache.num_gpu_blocks = blocks
    attention = FullAttentionSpec(
        block_size=block_size,
        num_kv_heads=_HEADS,
        head_size=_HEAD_WIDTH,
        dtype=torch.bfloat16,
    )
    groups = [KVCacheGroupSpec(["layer"], attention)]
    return Scheduler(
        vllm_config=whole,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups
        ),
        structured_output_manager=StructuredOutputManager(whole),
        block_size=block_size,
        log_stats=False,
    )
