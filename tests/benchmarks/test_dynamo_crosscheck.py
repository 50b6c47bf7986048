"""The cross-check with NVIDIA's replay: its times, its router's books, what it needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dynamo_books import Books
from dynamo_crosscheck import read_trace, settings, simulated, their_times, write_made_up_trace

from ppo_scheduler.errors import UserError
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.prefix_hits import hit_tokens
from vidur_ext.workload.request_table import RequestTable

PROGRAM = Path(__file__).parents[2] / "benchmarks/dynamo_crosscheck.py"


def test_a_request_takes_as_long_as_in_the_mocker():
    """1024 new tokens: 0.44145 + 15.54784 + 16.50142 ms. Then one step that reads them, rounded up
    to 1088, of 128 blocks of 64: a share of 0.1328125 and 12.4592 ms.
    """
    table = RequestTable(np.zeros(1), np.array([1024]), np.array([2]))
    cluster = their_times(engine_cluster(settings(128, table)), 128)
    [outcome] = simulated(cluster, table, "round_robin", runs=1)
    assert outcome.ttft_s == pytest.approx(32.49071e-3, rel=1e-6)
    assert outcome.e2e_s - outcome.ttft_s == pytest.approx(12.4592e-3, rel=1e-5)
    assert outcome.found_share == 0.0


def test_a_prompt_in_flight_counts_whole_until_its_first_token_and_in_blocks_until_its_last():
    first_token_at, completed_at = np.array([2.0, 0.0]), np.array([3.0, 0.0])
    books = Books(block_tokens=16)
    assert books.cost(100, [1, 2, 3, 4, 5, 6], found=0) == 100 / 16 + 6
    books.send(0, [1, 2, 3, 4, 5, 6], uncached=100)
    for now, expected in (
        # Of blocks 1, 2, 3 and 9 one is new; 52 of 68 tokens are computed.
        (1.0, (100 + 52) / 16 + 6 + 1),
        (2.0, 52 / 16 + 6 + 1),
        (3.0, 52 / 16 + 4),
    ):
        books.hear(now, first_token_at, completed_at)
        assert books.cost(68, [1, 2, 3, 9], found=16) == expected


def test_blocks_are_in_use_while_anybody_uses_them():
    books = Books(block_tokens=16)
    books.send(0, [1, 2], uncached=32)
    books.send(1, [1, 3], uncached=16)
    books.hear(1.0, np.array([0.5, 0.0]), np.array([1.0, 0.0]))
    assert books.cost(32, [1, 2], found=32) == (16 + 32 - 32) / 16 + 2 + 1


def test_a_made_up_trace_shares_prefixes(tmp_path):
    trace = tmp_path / "trace.jsonl"
    write_made_up_trace(trace, 200)
    table = read_trace(trace)
    assert len(table) == 200
    assert 0.3 < hit_tokens(table, 64, answers=False).sum() / table.prefill_tokens.sum() < 0.9


def test_a_trace_that_does_not_say_what_is_shared_is_refused(tmp_path):
    trace = tmp_path / "trace.jsonl"
    record = {"timestamp": 0, "input_length": 10, "output_length": 2}
    trace.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match=r"trace\.jsonl: has no hash_ids"):
        read_trace(trace)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "name one of Mooncake's that has hash_ids with --trace FILE"),
        (("--trace", "absent.jsonl"), "absent.jsonl"),
    ],
)
def test_what_is_missing_is_said_in_a_line(run_python, options, said):
    ended = run_python(PROGRAM, *options)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert said in ended.stderr.replace("\n", " ")
