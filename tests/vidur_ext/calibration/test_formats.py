"""Each format of measurements is known by its names and read as its publishers mean it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.calibration.measurements import Iterations, Requests
from vidur_ext.calibration.reading import read_measurements

N = 30
INDEX = range(N)


def aiperf_record(index: int, **changes: object) -> dict[str, object]:
    started = 1_759_813_207_000_000_000 + index * 500_000_000
    return {
        "metadata": {
            "request_start_ns": started,
            "benchmark_phase": "profiling",
            "was_cancelled": False,
        },
        "metrics": {
            "input_sequence_length": {"value": 550, "unit": "tokens"},
            "output_sequence_length": {"value": 9, "unit": "tokens"},
            "time_to_first_token": {"value": 255.5, "unit": "ms"},
            "request_latency": {"value": 1.25, "unit": "sec"},
        },
        "error": None,
    } | changes


def vllm_result(**changes: object) -> dict[str, object]:
    return {
        "request_throughput": 2.0,
        "input_lens": [100 + index for index in INDEX],
        "output_lens": [3] * N,
        "ttfts": [0.1] * N,
        "itls": [[0.02, 0.03]] * N,
        "start_times": [1000.0 + 0.5 * index for index in INDEX],
        "errors": [""] * N,
    } | changes


def first(requests: Requests) -> tuple[float, ...]:
    table = requests.table
    return (
        table.arrived_at[1],
        table.prefill_tokens[1],
        table.decode_tokens[1],
        requests.ttft_s[1],
        requests.e2e_s[1],
    )


def test_iterations_have_mean_context_and_seconds(write_csv) -> None:
    header = ["decode_requests", "prefill_tokens", "kv_tokens_sum", "step_ms"]
    read = read_measurements(write_csv(header, [[4, 256, 4000, 20.5]] * N))
    assert isinstance(read, Iterations)
    assert (read.decodes[0], read.mean_kv[0], read.prefill_tokens[0]) == (4, 1000, 256)
    assert read.step_s[0] == pytest.approx(0.0205)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (["decode_requests", "prefill_tokens", "batch_tokens"], [4, 256, 260]),
        (["decode_requests", "batch_tokens"], [4, 260]),
        (["batch_tokens", "prefill_tokens"], [260, 256]),
    ],
)
def test_two_of_three_sizes_tell_the_batch(write_csv, header, row) -> None:
    path = write_csv([*header, "kv_tokens_mean", "step_ms"], [[*row, 1000, 20]] * N)
    read = read_measurements(path)
    assert (read.decodes[0], read.prefill_tokens[0], read.mean_kv[0]) == (4, 256, 1000)


def test_a_batch_of_prompts_alone_has_no_context(write_csv) -> None:
    header = ["decode_requests", "prefill_tokens", "kv_tokens_mean", "step_ms"]
    assert read_measurements(write_csv(header, [[0, 256, "", 20]] * N)).mean_kv[0] == 0.0


def test_requests_are_sorted_and_begin_at_zero(write_csv, write_lines) -> None:
    names = ["arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "e2e_s"]
    rows = [[100 + index, 50 + index, 5, 0.25, 1.5] for index in reversed(INDEX)]
    for path in (
        write_csv(names, rows),
        write_lines([dict(zip(names, row, strict=True)) for row in rows]),
    ):
        read = read_measurements(path)
        assert first(read) == (1.0, 51, 5, 0.25, 1.5)
        assert read.measured["TPOT"][0] == pytest.approx((1.5 - 0.25) / 4)


def test_the_clocks_of_an_engine_log_meet_at_the_quickest_request(write_lines) -> None:
    lines = [
        {
            "request_id": f"bench-{index}",
            "input_toks": 10,
            "output_toks": 5,
            "arrival_time": 1e9 + index,
            "queued_ts": 500.0 + index + (0.25 if index else 0.0),
            "first_token_ts": 501.0 + index,
            "last_token_ts": 503.0 + index,
        }
        for index in INDEX
    ]
    assert first(read_measurements(write_lines(lines))) == (1.0, 10, 5, 1.0, 3.0)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_request_of_vllm_ends_with_its_last_token(tmp_path, indent) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(vllm_result(), indent=indent), encoding="utf-8")
    assert first(read_measurements(path)) == (0.5, 101, 3, 0.1, pytest.approx(0.15))


def test_failed_requests_of_vllm_are_left_out_and_counted(tmp_path) -> None:
    path = tmp_path / "result.json"
    failed = vllm_result(
        errors=["timeout", *[""] * (N - 1)],
        ttfts=[0.0, *[0.1] * (N - 1)],
        output_lens=[0, *[3] * (N - 1)],
    )
    path.write_text(json.dumps(failed), encoding="utf-8")
    read = read_measurements(path)
    assert len(read) == N - 1
    assert "1 failed requests left out" in read.describe()


def test_aiperf_says_its_units(write_lines) -> None:
    read = read_measurements(write_lines([aiperf_record(index) for index in INDEX]))
    arrival, *others = first(read)
    assert arrival == pytest.approx(0.5, abs=1e-6)
    assert others == [550, 9, 0.2555, 1.25]


def test_what_aiperf_did_not_finish_or_only_warmed_up_with_is_counted(write_lines) -> None:
    warm = {"request_start_ns": 1, "benchmark_phase": "warmup", "was_cancelled": False}
    records = [
        aiperf_record(0, error={"code": 499}, metrics={}),
        aiperf_record(0, metadata=warm),
        *(aiperf_record(index) for index in INDEX),
    ]
    read = read_measurements(write_lines(records))
    assert len(read) == N
    assert read.skipped == ("1 failed requests left out", "1 warm-up requests left out")


def test_the_last_fifth_of_requests_and_every_fifth_iteration_are_held_out(write_csv) -> None:
    names = ["arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "e2e_s"]
    requests = read_measurements(write_csv(names, [[index, 50, 5, 1, 2] for index in INDEX]))
    assert np.flatnonzero(requests.held_out).tolist() == [24, 25, 26, 27, 28, 29]
    header = ["decode_requests", "prefill_tokens", "kv_tokens_sum", "step_ms"]
    iterations = read_measurements(write_csv(header, [[4, 0, 4000, 20]] * N))
    assert np.flatnonzero(iterations.held_out).tolist() == [4, 9, 14, 19, 24, 29]


def test_a_format_can_be_named(write_csv) -> None:
    path = write_csv(["arrival_s", "step_ms"], [[1, 2]])
    with pytest.raises(UserError, match="missing: prompt_tokens"):
        read_measurements(path, "requests")
    with pytest.raises(UserError, match="expected two of the columns decode_requests"):
        read_measurements(path, "iterations")
