"""Record what vLLM's own V1 scheduler decides, step by step, as JSON lines.

``python benchmarks/record_vllm.py --cases 40 --seed 1 --out cases.jsonl``

Only vLLM's Python code runs; no GPU is needed. It goes into a folder of its own, beside the torch
that is there and without the kernels that vLLM would bring along: ``INSTALL`` is how, and
``PYTHONPATH=FOLDER`` lets this program find it.

A prompt is a list of [segment, tokens]: equal segments are equal text, so two prompts share a
prefix exactly as far as their segments do. What request i answers is segment ``a<i>``. A line:

* ``config``: num_blocks, block_size, max_num_seqs, max_num_batched_tokens, prefix_caching,
  reserve_full_prompt (vLLM's scheduler_reserve_full_isl), watermark
* ``requests``: [[step at which it is in the queue, prompt, output tokens], ...] by arrival
* ``steps``: of each step [[request, tokens computed in it], ...] in the batch's order; the last
  one is the last in which anything happens, also if requests wait that will never fit
* ``cached``: per request, tokens found in the cache when it was first scheduled
* ``preempted``: [[step, request], ...]
* ``resumed``: [[step, request, tokens found in the cache], ...] of requests scheduled again
* ``finished``: per request, the step whose end completed it
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from harness import Figures, run_benchmark_with_options

from ppo_scheduler.errors import UserError

if TYPE_CHECKING:
    from vllm_scheduler import Asked, Prompt

MOST_STEPS = 20_000
"""Of a case. Some have no end: without ``reserve_full_prompt``, vLLM admits a prompt that is longer
than the cache again and again."""

INSTALL = (
    "python -m pip install --no-deps --target FOLDER vllm==0.33.0 aiohappyeyeballs aiohttp "
    "aiosignal apache-tvm-ffi==0.1.11 attrs cachetools cbor2 cloudpickle 'fastapi<0.137' "
    "frozenlist huggingface_hub 'llguidance<1.8' msgspec multidict openai opencv-python-headless "
    "opentelemetry-api orjson oss-harmony partial-json-parser pillow prometheus_client propcache "
    "psutil py-cpuinfo pybase64 pyzmq regex safetensors sentencepiece starlette tiktoken "
    "tokenizers 'transformers<5.21' uvloop xgrammar==0.2.8 yarl"
)


class Kind(NamedTuple):
    """What cases of a kind draw from; ranges do not contain their ends."""

    blocks: tuple[int, int]
    block_sizes: tuple[int, ...] = (16, 32)
    most_running: tuple[int, ...] = (4, 16, 64)
    budgets: tuple[int, ...] = (128, 512, 2048)
    requests: tuple[int, int] = (12, 48)
    segment: tuple[int, int] = (1, 400)
    output: tuple[int, int] = (1, 90)
    gaps: tuple[int, ...] = (0, 0, 1, 2, 5, 15)
    """Steps between arrivals."""
    follow_up: float = 0.5
    """Share of requests that go on with an earlier exchange."""
    again: float = 0.1
    """Share of requests that are an earlier one again."""
    odd: bool = False
    """Whether whole prompts need not fit, blocks are spared, and texts fill blocks exactly."""


_TINY = Kind(
    blocks=(4, 40),
    block_sizes=(1, 8, 16, 32, 64),
    most_running=(1, 2, 5, 16),
    budgets=(1, 3, 16, 40, 300),
    requests=(3, 25),
    segment=(1, 60),
    output=(1, 40),
    follow_up=0.4,
    again=0.3,
)
KINDS = {
    "chat": Kind(blocks=(400, 2000)),
    "burst": Kind(blocks=(300, 800), gaps=(0,), follow_up=0.15),
    "thrash": Kind(blocks=(190, 300), most_running=(16, 64), output=(1, 300)),
    "tiny": _TINY,
    "odd": _TINY._replace(blocks=(4, 120), gaps=(0, 0, 0, 1, 4), odd=True),
    "short": _TINY._replace(
        blocks=(12, 24), block_sizes=(8, 16), budgets=(32, 128), requests=(6, 10), gaps=(0, 1, 4)
    ),
}


def draw_config(rng: np.random.Generator, kind: Kind) -> dict[str, Any]:
    """Return the limits of a case."""
    return {
        "num_blocks": int(rng.integers(*kind.blocks)),
        "block_size": int(rng.choice(kind.block_sizes)),
        "max_num_seqs": int(rng.choice(kind.most_running)),
        "max_num_batched_tokens": int(rng.choice(kind.budgets)),
        "prefix_caching": bool(rng.random() < 0.85),
        "reserve_full_prompt": not kind.odd or bool(rng.random() < 0.5),
        "watermark": float(rng.choice([0.0, 0.01, 0.1])) if kind.odd else 0.0,
    }


def draw_requests(rng: np.random.Generator, kind: Kind, block_size: int) -> list[Asked]:
    """Return the requests of a case, by arrival."""

    def length(limits: tuple[int, int]) -> int:
        tokens = int(rng.integers(*limits))
        whole = kind.odd and rng.random() < 0.4
        return -(-tokens // block_size) * block_size if whole else tokens

    systems: Prompt = [(f"s{k}", length(kind.segment)) for k in range(int(rng.integers(1, 4)))]
    asked: list[Asked] = []
    step = 0
    for place in range(int(rng.integers(*kind.requests))):
        step += int(rng.choice(kind.gaps))
        user = (f"u{place}", length(kind.segment))
        form = rng.random()
        earlier = int(rng.integers(len(asked))) if asked else 0
        if asked and form < kind.follow_up:
            _, prompt, answer = asked[earlier]
            cut = int(rng.integers(1, answer + 1)) if rng.random() < 0.2 else answer
            prompt = [*prompt, (f"a{earlier}", cut), user]
        elif asked and form < kind.follow_up + kind.again:
            prompt = asked[earlier][1]
        elif rng.random() < 0.7:
            prompt = [systems[int(rng.integers(len(systems)))], user]
        else:
            prompt = [user]
        if sum(tokens for _, tokens in prompt) > 3000:
            prompt = [user]
        output = 1 if rng.random() < 0.1 else int(rng.integers(*kind.output))
        asked.append((step, prompt, output))
    return asked


def record(cases: int, seed: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield recorded cases, of each kind in turn.

    Raises:
        UserError: vLLM is not installed, or something that it needs.
    """
    os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm_scheduler import decide, write_model
    except ImportError as error:
        raise UserError(
            f"vLLM's scheduler cannot be had ({error}): {INSTALL}, and run this with "
            "PYTHONPATH=FOLDER"
        ) from error
    with tempfile.TemporaryDirectory() as model:
        write_model(Path(model))
        for number in range(cases):
            rng = np.random.default_rng([seed, number])
            name = names[number % len(names)]
            config = draw_config(rng, KINDS[name])
            asked = draw_requests(rng, KINDS[name], config["block_size"])
            decided = decide(Path(model), config, asked, MOST_STEPS)
            yield {"kind": name, "config": config, "requests": asked, **decided}


def measure(arguments: argparse.Namespace) -> Figures:
    """Record, and count what was recorded."""
    counts = dict.fromkeys(("cases", "requests", "steps", "preempted", "resumed"), 0)
    with arguments.out.open("w", encoding="utf-8") as file:
        for case in record(
            2 if arguments.quick else arguments.cases, arguments.seed, arguments.kinds
        ):
            counts["cases"] += 1
            for key in ("requests", "steps", "preempted", "resumed"):
                counts[key] += len(case[key])
            file.write(json.dumps(case, separators=(",", ":")) + "\n")
    return dict(counts)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=40, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("vllm_steps.jsonl"), metavar="FILE")


if __name__ == "__main__":
    run_benchmark_with_options("Decisions of vLLM's V1 scheduler", _add_options, measure)
