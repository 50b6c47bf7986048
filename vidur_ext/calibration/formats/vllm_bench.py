"""Requests as ``vllm bench serve --save-result --save-detailed`` saves them: one JSON document.

Lists with an entry per request: ``start_times``, ``ttfts`` and ``itls`` in seconds, ``input_lens``
and ``output_lens`` in tokens, ``errors`` as texts, empty for those that were answered
(vLLM's ``vllm/benchmarks/serve.py``). A request ends with its last interval between tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ppo_scheduler.errors import UserError
from vidur_ext.calibration.formats.request_rows import RequestRows
from vidur_ext.calibration.formats.values import Place, amount, count, moment
from vidur_ext.calibration.measurements import Requests
from vidur_ext.workload.trace_rows import file_error, read_text

LISTS = STARTS, PROMPTS, OUTPUTS, TTFTS, ITLS, ERRORS = (
    "start_times", "input_lens", "output_lens", "ttfts", "itls", "errors",
)  # fmt: skip
NAMES = (*LISTS, "request_throughput", "total_input_tokens", "total_output_tokens")


def read(path: Path) -> Requests:
    """Read the result of a benchmark. Requests that failed are left out.

    Raises:
        UserError: the file is malformed, or lacks what is known of single requests.
    """
    lists = _lists(path, _document(path))
    rows = RequestRows(path)
    for index, (start, prompt, output, ttft, itls, error) in enumerate(zip(*lists, strict=True)):
        if error:
            rows.skip("failed requests")
            continue

        def at(name: str, index: int = index) -> Place:
            return Place(path, f"{name}[{index}]")

        if not isinstance(itls, list):
            raise at(ITLS).wrong("a list of seconds", itls)
        first = amount(at(TTFTS), ttft, "a time in seconds")
        between = [
            moment(Place(path, f"{ITLS}[{index}][{place}]"), itl) for place, itl in enumerate(itls)
        ]
        rows.add(
            f"request {index}",
            moment(at(STARTS), start),
            count(at(PROMPTS), prompt, 1),
            count(at(OUTPUTS), output, 1),
            first,
            first + sum(between),
        )
    return rows.requests()


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        several = error.msg == "Extra data"
        advice = "; --append-result put several runs into it, give each a file" if several else ""
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}{advice}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise file_error(path, f"not JSON that can be read: {error}") from None
    if not isinstance(document, dict):
        raise file_error(path, f"expected a JSON object, found a {type(document).__name__}")
    return document


def _lists(path: Path, document: dict[str, Any]) -> list[list[Any]]:
    missing = [name for name in LISTS if name not in document]
    if missing == [STARTS]:
        raise file_error(
            path,
            f"the list {STARTS} is missing, so it is not known when requests arrived; a newer vLLM "
            "saves it (vllm bench serve --save-result --save-detailed)",
        )
    if missing:
        raise file_error(
            path,
            f"the lists {', '.join(missing)} are missing; measure with "
            "vllm bench serve --save-result --save-detailed",
        )
    for name in LISTS:
        if not isinstance(document[name], list):
            raise Place(path, name).wrong("a list, an entry per request", document[name])
        if len(document[name]) != len(document[STARTS]):
            raise Place(path, name).error(
                f"has {len(document[name])} entries, {STARTS} has {len(document[STARTS])}"
            )
    return [document[name] for name in LISTS]
