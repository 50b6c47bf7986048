"""Whether our scheduler of vLLM's V1 decides as vLLM itself does, step by step.

``python benchmarks/vllm_parity.py --cases FILE --json FILE`` replays recorded cases
(``benchmarks/record_vllm.py`` records them and tells their format) and names the first difference.
Without a file it replays those that the tests hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from harness import Figures, run_benchmark_with_options
from record_vllm import MOST_STEPS

from ppo_scheduler.errors import UserError
from vidur_ext.vidur.vllm_v1.scheduler import Limits, Request, Scheduler
from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.prompts import Prompts

GOLDEN = Path(__file__).parents[1] / "tests/vidur_ext/vidur/vllm_v1/golden/steps.jsonl"

Case = dict[str, Any]
DECISIONS = ("steps", "cached", "preempted", "resumed", "finished")
"""What a case holds of the scheduler's decisions; its other keys are what it was asked."""


def read_cases(file: Path) -> list[Case]:
    """Return the cases of a file, one a line.

    Raises:
        UserError: it cannot be read, or a line is no case.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); record cases first") from error
    cases = []
    for number, line in enumerate(lines, 1):
        try:
            case = json.loads(line)
            Limits(**case["config"])
            missing = [key for key in ("requests", *DECISIONS) if key not in case]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file}:{number}: is no case ({error}); record it again") from error
        if missing:
            raise UserError(f"{file}:{number}: has no {', '.join(missing)}; record it again")
        cases.append(case)
    return cases


def replay(case: Case) -> dict[str, Any]:
    """Return what our scheduler decides where vLLM's was asked: the values of ``DECISIONS``."""
    scheduler = Scheduler(Limits(**case["config"]))
    requests = _requests_of(case)
    number = {request: place for place, request in enumerate(requests)}
    arrivals = deque(zip((arrival for arrival, _, _ in case["requests"]), requests, strict=True))
    steps: list[list[list[int]]] = []
    cached: list[int | None] = [None] * len(requests)
    finished: list[int | None] = [None] * len(requests)
    preempted, resumed = [], []
    while len(steps) < MOST_STEPS and (arrivals or scheduler.waiting or scheduler.running):
        now = len(steps)
        while arrivals and arrivals[0][0] <= now:
            scheduler.add(arrivals.popleft()[1])
        step = scheduler.schedule()
        if not (step.scheduled or step.preempted or arrivals):
            break  # what waits now will never fit
        steps.append([[number[request], tokens] for request, tokens in step.scheduled])
        preempted += [[now, place] for place in sorted(number[r] for r in step.preempted)]
        for request, hit in step.admitted:
            if cached[number[request]] is None:
                cached[number[request]] = hit
            else:
                resumed.append([now, number[request], hit])
        for request in scheduler.update(step):
            finished[number[request]] = now
    return dict(zip(DECISIONS, (steps, cached, preempted, resumed, finished), strict=True))


def first_difference(case: Case) -> str | None:
    """Return where our decisions leave those of a case, or None if they are equal."""
    ours = replay(case)
    pairs = zip_longest(ours["steps"], case["steps"])
    for step, (own, theirs) in enumerate(pairs):
        if own != theirs:
            return f"step {step}: ours schedules {own}, vLLM {theirs}"
    for key in DECISIONS[1:]:
        for place, (own, theirs) in enumerate(zip_longest(ours[key], case[key])):
            if own != theirs:
                return f"{key}[{place}]: ours {own}, vLLM {theirs}"
    return None


def _requests_of(case: Case) -> list[Request]:
    prompts = [prompt for _, prompt, _ in case["requests"]]
    outputs = [output for _, _, output in case["requests"]]
    ids: dict[str, int] = {}
    rows = [[(ids.setdefault(name, len(ids)), n) for name, n in prompt] for prompt in prompts]
    answers = [ids.setdefault(f"a{i}", len(ids)) for i in range(len(prompts))]
    runs = block_runs(
        Prompts.of(rows, answers), np.array(outputs, np.int64), case["config"]["block_size"]
    )
    return [
        Request(sum(n for _, n in prompt), output, runs.of_request(i).tolist())
        for i, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
    ]


def measure(arguments: argparse.Namespace) -> Figures:
    """Count equal cases; print the first difference of the others."""
    cases = read_cases(arguments.cases)[: 2 if arguments.quick else None]
    differences = [first_difference(case) for case in cases]
    for number, difference in enumerate(differences):
        if difference is not None:
            print(f"case {number} ({cases[number].get('kind')}), {difference}")
    return {"cases_equal": differences.count(None), "cases": len(cases)}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, default=GOLDEN, metavar="FILE", help="recorded cases")


if __name__ == "__main__":
    measured = run_benchmark_with_options("Equal to vLLM's V1 scheduler", _add_options, measure)
    sys.exit(measured["cases_equal"] != measured["cases"])
