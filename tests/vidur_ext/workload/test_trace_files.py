"""Trace formats, and what a malformed file is told."""

from __future__ import annotations

import numpy as np
import pytest
from vidur_ext.workload.traces.formats import detect_format

from ppo_scheduler.errors import UserError
from vidur_ext.workload.traces.load import load_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:50.9951690,879,55
"""
SPLITWISE = """arrived_at,num_prefill_tokens,num_decode_tokens
0.0,374,44
4.314579,396,109
4.314579,879,55
"""
BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,1,2,ChatGPT,374,44,418,Conversation log
7,1,2,ChatGPT,100,0,100,Conversation log
9.314579,1,2,GPT-4,396,109,505,Conversation log
9.314579,1,2,GPT-4,879,55,934,API log
"""
MOONCAKE = """{"timestamp": 1000, "input_length": 374, "output_length": 44, "hash_ids": [0]}
{"timestamp": 5314.579, "input_length": 396, "output_length": 109, "hash_ids": [1]}
{"timestamp": 5314.579, "input_length": 879, "output_length": 55, "hash_ids": [2]}
"""
FORMATS = {"azure": AZURE, "splitwise": SPLITWISE, "burstgpt": BURSTGPT, "mooncake": MOONCAKE}


def write(tmp_path, text: str, name: str = "trace.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("asked", ["auto", "itself"])
def test_every_format_is_read(tmp_path, kind, asked):
    table = load_trace(
        write(tmp_path, FORMATS[kind]), "auto" if asked == "auto" else kind, max_tokens=8192
    )
    np.testing.assert_allclose(table.arrived_at, [0.0, 4.314579, 4.314579], atol=1e-9)
    np.testing.assert_array_equal(table.prefill_tokens, [374, 396, 879])
    np.testing.assert_array_equal(table.decode_tokens, [44, 109, 55])


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_recognised(tmp_path, kind):
    assert detect_format(write(tmp_path, FORMATS[kind])) == kind


def test_long_requests_are_cut(tmp_path):
    table = load_trace(write(tmp_path, AZURE), "azure", max_tokens=400)
    np.testing.assert_array_equal(table.prefill_tokens, [356, 291, 345])


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("azure", "396,109", "396,abc", "line 3, column GeneratedTokens: expected an integer >= 1, found 'abc'"),
        ("azure", "396,109", "-1,109", "line 3, column ContextTokens: expected an integer >= 1, found '-1'"),
        ("azure", "396,109", "396", "line 3: expected 3 fields, found 2"),
        ("azure", "2023-11-16 18:15:46.6805900", "yesterday", "line 2, column TIMESTAMP: expected a time like"),
        ("azure", "2023-11-16 18:15:46", "2023-11-16 19:15:46", "line 3, column TIMESTAMP: arrives before"),
        ("azure", "ContextTokens", "Context", "line 1: expected the columns TIMESTAMP, ContextTokens"),
        ("splitwise", "4.314579,396", "nan,396", "line 3, column arrived_at: expected a number >= 0, found 'nan'"),
        ("splitwise", "396,109", "396,0", "line 3, column num_decode_tokens: expected an integer >= 1"),
        ("burstgpt", "9.314579,1,2,GPT-4,396", "9.314579,1,2,GPT-4,3.5", "line 4, column Request tokens"),
        ("mooncake", '"input_length": 396', '"input_length": "x"', "line 2, column input_length: expected an integer"),
        ("mooncake", '"output_length": 109', '"length": 109', "line 2, column output_length: expected this key"),
        ("mooncake", "[1]}", "[1]", "line 2, column"),
    ],
)  # fmt: skip
def test_malformed_files_name_file_line_column_and_expectation(tmp_path, kind, old, new, message):
    path = write(tmp_path, FORMATS[kind].replace(old, new, 1))
    with pytest.raises(UserError) as error:
        load_trace(path, kind, max_tokens=8192)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00\x01", "no UTF-8 text"),
        (b"a,b,c\n1,2,3\n", "no known trace begins like 'a,b,c'"),
        (b"arrived_at,num_prefill_tokens,num_decode_tokens\n", "no requests below its header"),
    ],
)
def test_files_that_are_no_traces_are_named(tmp_path, content, message):
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_trace(path, "auto", max_tokens=8192)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_missing_files_and_folders_are_named(tmp_path, name):
    with pytest.raises(UserError, match="cannot read the trace"):
        load_trace(tmp_path / name, "auto", max_tokens=8192)
