"""Both engines still do what they did when the traces in ``golden/`` were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

TRACES = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_there_are_traces_of_every_replica_scheduler_and_of_preemptions():
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in TRACES]
    assert {d["cluster"]["replica_scheduler"] for d in documents} == {
        "sarathi",
        "vllm",
        "vllm_v1",
        "orca",
    }
    assert sum(any(d["restarts"]) for d in documents) >= 3
    assert sum(any(d["found_tokens"]) for d in documents) == 1


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_an_engine_reproduces_the_trace(path, simulate, make_case):
    trace = json.loads(path.read_text(encoding="utf-8"))
    table = RequestTable(
        np.array(trace["arrived_at"]),
        np.array(trace["prefill_tokens"]),
        np.array(trace["decode_tokens"]),
        trace["texts"] and Prompts.of(*trace["texts"]),
    )
    case = make_case(trace["cluster"], trace["rule"], trace["workload"]["max_tokens"], 0, table)
    history = simulate(case)
    assert history.routing.tolist() == trace["replica"]
    assert history.preemptions.tolist() == trace["restarts"]
    assert history.found_tokens.tolist() == trace["found_tokens"]
    np.testing.assert_allclose(history.times, trace["times"], rtol=1e-9, atol=0)
