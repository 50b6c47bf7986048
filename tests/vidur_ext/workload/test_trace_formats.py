"""Every format is read as its publishers describe it, and recognized by its first line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.workload.trace_files import load_trace
from vidur_ext.workload.trace_rows import Trace

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.6805900,374,44
2023-11-17 00:00:00.6805901,396,109
2023-11-17 00:00:03,879,55
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 02:00:00.009930+02:00,374,44
2024-05-10 00:00:00.509930+00:00,396,109
"""
SPLITWISE = """\
arrived_at,num_prefill_tokens,num_decode_tokens
0.0,374,44
4.314579,396,109
1e1,879,55
"""
BURSTGPT = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
2,-1,1,ChatGPT,100,0,100,API log
5,0,1.5,ChatGPT,472,18,490,Conversation log
45,1,2.5,GPT-4,0,0,0,API log
118.5,2,9,GPT-4,417,276,693,"Conversation, logged"
"""
BURSTGPT_OLD = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
118.5,GPT-4,417,276,693,Conversation log
"""
MOONCAKE = """\
{"timestamp": 250, "input_length": 2755, "output_length": 500, "hash_ids": [0, 1, 2, 3, 4, 5]}
{"timestamp": 250, "input_length": 1319, "output_length": 490, "hash_ids": [0, 1, 14]}

{"timestamp": 3302, "input_length": 17, "output_length": 1, "hash_ids": [30]}
"""
BAILIAN = """\
{"chat_id": 0, "parent_chat_id": -1, "timestamp": 0.036, "input_length": 30, "output_length": 135, "type": "text", "turn": 1, "hash_ids": [0, 7]}
{"chat_id": 1, "parent_chat_id": 0, "timestamp": 3.5, "input_length": 37, "output_length": 1, "type": "file", "turn": 2, "hash_ids": [0, 8, 9]}
"""  # noqa: E501
CANARY = """\
arrived_at,num_prefill_tokens,num_decode_tokens,session_id,block_hash_ids
1.5,32,30,7,11|22
2.0,40,3,7,11|22|33
2.0,17,9,,
"""
TRACELAB = """\
id,input_len,output_len,arrival_time,round_idx,tool_wait_after_ms,prefix_len
a,512,64,1000.000000,0,250.000000,0
a,128,8,1000.000000,1,0.000000,576
b,400,48,1500.000000,0,0.000000,0
"""
GUIDELLM = """\
{"timestamp": 0.0, "input_length": 66, "output_length": 184}
{"timestamp": 0.25, "input_length": 17, "output_length": 1}
"""
SAMPLES = {
    "azure": (AZURE, [(0.0, 374, 44), (1.0000001, 396, 109), (3.31941, 879, 55)]),
    "azure 2024": (AZURE_2024, [(0.0, 374, 44), (0.5, 396, 109)]),
    "splitwise": (SPLITWISE, [(0.0, 374, 44), (4.314579, 396, 109), (10.0, 879, 55)]),
    "burstgpt": (BURSTGPT, [(0.0, 472, 18), (113.5, 417, 276)]),
    "burstgpt old": (BURSTGPT_OLD, [(0.0, 472, 18), (113.5, 417, 276)]),
    "bailian": (BAILIAN, [(0.0, 30, 135), (3.464, 37, 1)]),
    "mooncake": (MOONCAKE, [(0.0, 2755, 500), (0.0, 1319, 490), (3.052, 17, 1)]),
    "canary": (CANARY, [(0.0, 32, 30), (0.5, 40, 3), (0.5, 17, 9)]),
    # The second round arrives 0.25 s after an answer of 64 tokens, at 0.03 s each.
    "tracelab": (TRACELAB, [(0.0, 512, 64), (0.5, 400, 48), (2.17, 704, 8)]),
}


def load(
    tmp_path: Path,
    text: str,
    trace_format: str = "auto",
    max_tokens: int = 10**6,
    time_unit: str = "auto",
) -> Trace:
    path = tmp_path / "trace"
    path.write_bytes(text.encode())
    return load_trace(path, trace_format, max_tokens, time_unit)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("name", list(SAMPLES))
def test_a_sample_is_read(tmp_path: Path, name: str, explicit: bool) -> None:
    text, expected = SAMPLES[name]
    table = load(tmp_path, text, name.split()[0] if explicit else "auto").table
    times, prompts, outputs = zip(*expected, strict=True)
    assert table.arrived_at.tolist() == pytest.approx(list(times), abs=1e-9)
    assert table.prefill_tokens.tolist() == list(prompts)
    assert table.decode_tokens.tolist() == list(outputs)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path, name: str) -> None:
    text, _ = SAMPLES[name]
    expected = load(tmp_path, text).table.digest()
    assert load(tmp_path, "\ufeff" + text.replace("\n", "\r\n")).table.digest() == expected


def test_seconds_under_the_keys_of_milliseconds_are_not_taken_for_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"have fractions, .* workload\.trace_time_unit"):
        load(tmp_path, GUIDELLM)


@pytest.mark.parametrize(
    ("text", "unit", "last"),
    [
        (GUIDELLM, "s", 0.25),
        (GUIDELLM, "ms", 0.00025),
        (MOONCAKE, "us", 0.003052),
        (BURSTGPT_OLD, "ms", 0.1135),
        (SPLITWISE, "ns", 1e-8),
        (BAILIAN, "ms", 0.003464),
        (CANARY, "ms", 0.0005),
    ],
)
def test_a_unit_that_is_said_counts(tmp_path: Path, text: str, unit: str, last: float) -> None:
    arrived = load(tmp_path, text, time_unit=unit).table.arrived_at
    assert (arrived[0], arrived[-1]) == pytest.approx((0.0, last), rel=1e-9)


def test_dates_have_no_unit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"which workload\.trace_time_unit=s cannot change"):
        load(tmp_path, AZURE, time_unit="s")


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    text = "num_decode_tokens,extra,arrived_at,num_prefill_tokens\n44,x,0.0,374\n"
    assert load(tmp_path, text).table.prefill_tokens.tolist() == [374]


def test_failed_requests_of_burstgpt_are_skipped_and_counted(tmp_path: Path) -> None:
    assert load(tmp_path, BURSTGPT).notes == ("2 failed requests were skipped",)
    assert load(tmp_path, BURSTGPT_OLD).notes == ()


def test_long_requests_are_cut_and_counted(tmp_path: Path) -> None:
    trace = load(tmp_path, MOONCAKE, max_tokens=3000)
    assert trace.table.prefill_tokens.tolist() == [2500, 1319, 17]
    assert trace.table.decode_tokens.tolist() == [500, 490, 1]
    assert trace.notes == ("1 of 3 requests were cut to max_tokens=3000",)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert len(load(tmp_path, BURSTGPT_OLD).table) == 2
    assert len(load(tmp_path, BURSTGPT_OLD + "119,GPT-4,1,1,2,API log\n").table) == 3


def test_the_seventh_decimal_of_azure_survives_years(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805901,1,1\n"
        "2023-11-16 18:15:46.6805902,1,1\n"
    )
    assert load(tmp_path, text).table.arrived_at[1] == 1e-7
