"""What is wrong in a file of measurements is named with its place, in one sentence."""

from __future__ import annotations

import json

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.calibration.reading import read_measurements

STEPS = ["decode_requests", "prefill_tokens", "kv_tokens_sum", "step_ms"]
LOG = ["arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "e2e_s"]
STAMPS = {
    "arrival_time": 1e9,
    "queued_ts": 5.0,
    "first_token_ts": 6.0,
    "last_token_ts": 7.0,
    "input_toks": 3,
    "output_toks": 4,
}
GOOD_STEP = [4, 256, 4000, 20]
GOOD_REQUEST = [1, 50, 5, 0.25, 1.5]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("step_ms", "nan", r"line 3, column step_ms: expected a time in ms above 0, found nan"),
        ("step_ms", "-2", r"line 3, column step_ms: .*found -2"),
        ("step_ms", "fast", r"line 3, column step_ms: .*found 'fast'"),
        ("step_ms", "", r"line 3, column step_ms: .*found ''"),
        ("decode_requests", "1.5", r"line 3, column decode_requests: expected an integer"),
        ("prefill_tokens", "-1", r"line 3, column prefill_tokens: expected an integer from 0"),
        ("kv_tokens_sum", "2", r"line 3, column kv_tokens_sum: 4 decoding requests have 0.5"),
        ("kv_tokens_sum", "inf", r"line 3, column kv_tokens_sum: expected .*found inf"),
    ],
)
def test_a_bad_value_of_an_iteration(write_csv, column, value, said) -> None:
    bad = list(GOOD_STEP)
    bad[STEPS.index(column)] = value
    with pytest.raises(UserError, match=r"^\S+measured\.csv, " + said):
        read_measurements(write_csv(STEPS, [GOOD_STEP, bad]))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("arrival_s", "yesterday", r"column arrival_s: expected a time in seconds"),
        ("arrival_s", 1.76e12, r"column arrival_s: expected a time in seconds \(this is in ms"),
        ("prompt_tokens", 0, r"column prompt_tokens: expected an integer from 1"),
        ("output_tokens", 3e9, r"column output_tokens: expected an integer from 1 to 2147483647"),
        ("ttft_s", 0, r"column ttft_s: expected a time in seconds above 0, found 0"),
        ("ttft_s", 250, r"the last token came 1\.5 s after the request, before the first one"),
        ("e2e_s", "NaN", r"column e2e_s: expected a time in seconds above 0, found nan"),
    ],
)
def test_a_bad_value_of_a_request(write_csv, column, value, said) -> None:
    bad = list(GOOD_REQUEST)
    bad[LOG.index(column)] = value
    with pytest.raises(UserError, match=r"^\S+measured\.csv, line 3[:,] ?" + said):
        read_measurements(write_csv(LOG, [GOOD_REQUEST, bad]))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (["decode_requests", "step_ms"], r"line 1: expected two of .*missing: prefill_tokens, bat"),
        (["decode_requests", "prefill_tokens", "step_ms"], r"line 1: .*missing: kv_tokens_sum"),
        (["decode_requests", "prefill_tokens", "kv_tokens_sum"], r"missing: step_ms"),
        ([*STEPS, "step_ms"], r"line 1: the column step_ms is there twice"),
        (["arrival_s", "ttft_s"], r"line 1: .*missing: prompt_tokens, output_tokens, e2e_s"),
        (["a", "b"], r"line 1: expected the columns or JSON keys of measurements"),
    ],
)
def test_a_missing_or_unknown_column(write_csv, header, said) -> None:
    with pytest.raises(UserError, match=said):
        read_measurements(write_csv(header, []))


def test_sizes_that_contradict_each_other(write_csv) -> None:
    header = ["decode_requests", "prefill_tokens", "batch_tokens", "kv_tokens_sum", "step_ms"]
    with pytest.raises(UserError, match=r"line 2, column batch_tokens: 300 tokens are not"):
        read_measurements(write_csv(header, [[4, 256, 300, 4000, 20]]))
    with pytest.raises(UserError, match=r"line 2, column prefill_tokens: the batch is empty"):
        read_measurements(write_csv(STEPS, [[0, 0, 0, 20]]))


@pytest.mark.parametrize("rows", [0, 24])
def test_too_few_rows(write_csv, rows) -> None:
    with pytest.raises(UserError, match=rf"{rows} iterations are too few .* at least 25"):
        read_measurements(write_csv(STEPS, [GOOD_STEP] * rows))
    with pytest.raises(UserError, match=rf"{rows} answered requests are too few"):
        read_measurements(write_csv(LOG, [GOOD_REQUEST] * rows))


def test_an_empty_file_and_one_that_is_no_text(tmp_path) -> None:
    path = tmp_path / "measured.csv"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"measured\.csv: is empty; expected a CSV"):
        read_measurements(path)
    path.write_bytes(b"step_ms\n\xff\n")
    with pytest.raises(UserError, match=r"measured\.csv, line 2: expected UTF-8 text"):
        read_measurements(path)


def test_a_bad_line_of_json(tmp_path, write_lines) -> None:
    path = tmp_path / "measured.jsonl"
    good = json.dumps(STAMPS)
    path.write_text(f"{good}\n{good[:-4]}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"measured\.jsonl, line 2, column \d+ \(character\)"):
        read_measurements(path)
    with pytest.raises(UserError, match=r"line 1, column first_token_ts: expected a time after"):
        read_measurements(write_lines([STAMPS | {"first_token_ts": 4.0}]))
    with pytest.raises(UserError, match=r"line 1, column queued_ts: .*found None"):
        read_measurements(write_lines([STAMPS | {"queued_ts": None}]))


LISTS = {
    "start_times": [0.5, 1.0],
    "input_lens": [5, 6],
    "output_lens": [2, 2],
    "ttfts": [0.1, 0.1],
    "itls": [[0.02], [0.02]],
    "errors": ["", ""],
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ttfts": [0.1, None]}, r"ttfts\[1\]: expected a time in seconds above 0, found None"),
        ({"itls": [[0.02], [0.02, -1]]}, r"itls\[1\]\[1\]: expected a time .*found -1"),
        ({"itls": [[0.02], 7]}, r"itls\[1\]: expected a list of seconds, found 7"),
        ({"input_lens": [5, "6"]}, r"input_lens\[1\]: expected an integer from 1"),
        ({"output_lens": [2]}, r"output_lens: has 1 entries, start_times has 2"),
        ({"errors": 0}, r"errors: expected a list, an entry per request, found 0"),
        ({"start_times": [float("nan"), 1]}, r"start_times\[0\]: expected a time in seconds"),
    ],
)
def test_a_bad_value_of_vllm(tmp_path, changes, said) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(LISTS | changes), encoding="utf-8")
    with pytest.raises(UserError, match=r"result\.json, " + said):
        read_measurements(path)


def test_a_result_of_vllm_without_single_requests_says_what_to_pass(tmp_path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"request_throughput": 2.0}), encoding="utf-8")
    with pytest.raises(UserError, match=r"vllm bench serve --save-result --save-detailed"):
        read_measurements(path)
    without = {name: LISTS[name] for name in LISTS if name != "start_times"}
    path.write_text(json.dumps(without), encoding="utf-8")
    with pytest.raises(UserError, match=r"start_times is missing.*a newer vLLM saves it"):
        read_measurements(path)
    path.write_text(f"{json.dumps(LISTS)}\n{json.dumps(LISTS)}", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2, column 1: not JSON: Extra data; --append-result"):
        read_measurements(path)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, r"line 1, metrics\.input_sequence_length: is missing; .*--streaming"),
        ({"input_sequence_length": 5}, r"metrics\.input_sequence_length: expected an object"),
        (
            {
                "input_sequence_length": {"value": 5},
                "output_sequence_length": {"value": 5},
                "time_to_first_token": {"value": 5, "unit": "weeks"},
            },
            r"metrics\.time_to_first_token: expected a unit of ns, us, ms, s, sec, found 'weeks'",
        ),
    ],
)
def test_a_bad_metric_of_aiperf(write_lines, metrics, said) -> None:
    record = {"metadata": {"request_start_ns": 5}, "metrics": metrics, "error": None}
    with pytest.raises(UserError, match=said):
        read_measurements(write_lines([record]))


def test_aiperfs_statistics_are_not_its_records(tmp_path) -> None:
    path = tmp_path / "profile_export_aiperf.json"
    summary = {"time_to_first_token": {"avg": 5.0}, "request_latency": {"avg": 7.0}}
    path.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    with pytest.raises(UserError, match=r"give AIPerf's profile_export\.jsonl"):
        read_measurements(path)
