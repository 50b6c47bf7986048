"""A malformed trace is refused with file, line, column and what was expected."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.workload.trace_files import load_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
SPLITWISE = "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,374,44\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n"
MOONCAKE = '{"timestamp": 5, "input_length": 7, "output_length": 9}\n'
HASHED = '{"timestamp": 5, "input_length": 513, "output_length": 9, "hash_ids": [0, 1]}\n'
BAILIAN = (
    '{"chat_id": 3, "parent_chat_id": 2, "timestamp": 1, "input_length": 17, "output_length": 9, '
    '"turn": 2, "hash_ids": [0, 1]}\n'
)
CANARY = (
    "arrived_at,num_prefill_tokens,num_decode_tokens,session_id,block_hash_ids\n1,32,9,7,11|22\n"
)
TRACELAB = (
    "id,input_len,output_len,arrival_time,round_idx,tool_wait_after_ms,prefix_len\n"
    "a,100,9,0,0,250,0\n"
)
DEEP = "[" * 100_000


def refusal(tmp_path: Path, content: str | bytes, trace_format: str = "auto") -> str:
    """Return the error's text, with the path cut to the file's name."""
    path = tmp_path / "trace.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        load_trace(path, trace_format, 8192)
    return str(error.value).removeprefix(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            AZURE + "2023-11-16 18:15:47.1,396,abc\n",
            "trace.csv, line 3, column GeneratedTokens: expected an integer >= 1, found 'abc'",
        ),
        (
            AZURE + "2023-11-16 18:15:47.1,396,0\n",
            "trace.csv, line 3, column GeneratedTokens: expected an integer >= 1, found '0'",
        ),
        (
            AZURE + "2023-11-16 18:15:47.1,39.5,1\n",
            "trace.csv, line 3, column ContextTokens: expected an integer >= 1, found '39.5'",
        ),
        (
            AZURE + "2023-13-16 18:15:47.1,396,1\n",
            "trace.csv, line 3, column TIMESTAMP: expected a time like "
            "2023-11-16 18:15:46.6805900, found '2023-13-16 18:15:47.1'",
        ),
        (
            AZURE + "0001-01-01 00:00:00.0000000+02:00,396,1\n",
            "trace.csv, line 3, column TIMESTAMP: expected a time like "
            "2023-11-16 18:15:46.6805900, found '0001-01-01 00:00:00.0000000+02:00'",
        ),
        (
            AZURE + "9999-12-31 23:59:59.9999999-05:00,396,1\n",
            "trace.csv, line 3, column TIMESTAMP: expected a time like "
            "2023-11-16 18:15:46.6805900, found '9999-12-31 23:59:59.9999999-05:00'",
        ),
        (
            AZURE + "yesterday,396,1\n",
            "trace.csv, line 3, column TIMESTAMP: expected a time like "
            "2023-11-16 18:15:46.6805900, found 'yesterday'",
        ),
        (
            AZURE + "\n2023-11-16 18:15:45.6805900,396,1\n",
            "trace.csv, line 4, column TIMESTAMP: expected a time not before that of line 2, "
            "found one 1 s earlier; sort the file by TIMESTAMP",
        ),
        (
            SPLITWISE + "-1,396,1\n",
            "trace.csv, line 3, column arrived_at: expected a number >= 0, found '-1'",
        ),
        (
            SPLITWISE + "nan,396,1\n",
            "trace.csv, line 3, column arrived_at: expected a number >= 0, found 'nan'",
        ),
        (
            SPLITWISE + "2.0,4000000000,1\n",
            "trace.csv, line 3, column num_prefill_tokens: expected an integer <= 2147483647, "
            "found '4000000000'",
        ),
        (
            SPLITWISE + "2.0,396\n",
            "trace.csv, line 3: expected 3 fields (arrived_at,num_prefill_tokens,"
            "num_decode_tokens), found 2",
        ),
        (
            SPLITWISE + '2.0,396,"1\n',
            "trace.csv, line 3: is not valid CSV: unexpected end of data",
        ),
        (
            BURSTGPT + "6,GPT-4,0,7\n",
            "trace.csv, line 3, column Request tokens: expected an integer >= 1, found '0'",
        ),
        (
            BURSTGPT + "4,GPT-4,10,0\n",
            "trace.csv, line 3, column Timestamp: expected a time not before that of line 2, "
            "found one 1 s earlier; sort the file by Timestamp",
        ),
        (
            MOONCAKE + '{"timestamp": 6, "input_length": true, "output_length": 9}\n',
            "trace.csv, line 2, column input_length: expected an integer >= 1, found True",
        ),
        (
            MOONCAKE + '{"timestamp": 6, "input_length": 1.5, "output_length": 9}\n',
            "trace.csv, line 2, column input_length: expected an integer >= 1, found 1.5",
        ),
        (
            MOONCAKE + '{"timestamp": NaN, "input_length": 1, "output_length": 9}\n',
            "trace.csv, line 2, column timestamp: expected a number >= 0, found nan",
        ),
        (
            MOONCAKE + '{"timestamp": "6", "input_length": 1, "output_length": 9}\n',
            "trace.csv, line 2, column timestamp: expected a number >= 0, found '6'",
        ),
        (
            MOONCAKE + '{"timestamp": 6, "input_length": 1}\n',
            "trace.csv, line 2: expected the keys timestamp, input_length, output_length; "
            "missing: output_length; found: timestamp, input_length",
        ),
        (
            MOONCAKE + '{"timestamp": 6, "input_length": 1, "timestamp": 7, "output_length": 9}\n',
            "trace.csv, line 2: the key timestamp stands there twice",
        ),
        (
            MOONCAKE + "[1, 2]\n",
            "trace.csv, line 2: expected a JSON object, found '[1, 2]'",
        ),
        (
            MOONCAKE + '{"timestamp": 6, oops}\n',
            "trace.csv, line 2, column 18 (character): expected a JSON object (Expecting property "
            "name enclosed in double quotes), found '{\"timestamp\": 6, oops}'",
        ),
        (
            MOONCAKE + f'{{"timestamp": {DEEP}\n',
            "trace.csv, line 2: expected a flat JSON object, found deep nesting",
        ),
        (
            HASHED + HASHED.replace("[0, 1]", "[0, 1, 2]"),
            "trace.csv, line 2, column hash_ids: expected 2 ids, one for each 512 tokens of 513, "
            "found 3",
        ),
        (
            HASHED + HASHED.replace("[0, 1]", "[]"),
            "trace.csv, line 2, column hash_ids: expected 2 ids, one for each 512 tokens of 513, "
            "found 0",
        ),
        (
            HASHED + HASHED.replace("[0, 1]", '"0 1"'),
            "trace.csv, line 2, column hash_ids: expected a list of ids, found '0 1'",
        ),
        *(
            (
                HASHED + HASHED.replace("[0, 1]", f"[0, {wrong}]"),
                "trace.csv, line 2, column hash_ids: expected whole numbers from 0, below 1e+18; "
                "the one at position 2 is none",
            )
            for wrong in ("-1", "1.0", "true", "null", '"1"', "1" + 18 * "0", 4400 * "9")
        ),
        (
            HASHED + MOONCAKE,
            "trace.csv, line 2: all lines have hash_ids or none: line 1 has",
        ),
        (
            MOONCAKE + HASHED,
            "trace.csv, line 2: all lines have hash_ids or none: line 1 has not",
        ),
        (
            BAILIAN + BAILIAN,
            "trace.csv, line 2, column chat_id: 3 is that of line 1 already",
        ),
        (
            BAILIAN
            + BAILIAN.replace(
                '"chat_id": 3, "parent_chat_id": 2', '"chat_id": 2, "parent_chat_id": -1'
            ),
            "trace.csv, line 2, column chat_id: 2 is the parent of line 1 above; a turn follows "
            "its parent: sort the file by timestamp",
        ),
        (
            BAILIAN + BAILIAN.replace('"parent_chat_id": 2', '"parent_chat_id": -2'),
            "trace.csv, line 2, column parent_chat_id: expected a chat_id, or -1 for a first "
            "turn, found -2",
        ),
        (
            BAILIAN + BAILIAN.replace('"chat_id": 3', '"chat_id": "x"'),
            "trace.csv, line 2, column chat_id: expected a whole number >= 0, found 'x'",
        ),
        (
            BAILIAN.replace('"turn": 2', '"turn": 0'),
            "trace.csv, line 1, column turn: expected a whole number >= 1, found 0",
        ),
        (
            BAILIAN.replace('"input_length": 17', '"input_length": 16'),
            "trace.csv, line 1, column hash_ids: expected 1 ids, one for each 16 tokens of 16, "
            "found 2",
        ),
        (
            CANARY + "1,33,9,7,11|22\n",
            "trace.csv, line 3, column block_hash_ids: expected 3 ids, one for each 16 tokens of "
            "33, found 2",
        ),
        (
            CANARY + "1,32,9,7,11|x\n",
            "trace.csv, line 3, column block_hash_ids: expected whole numbers from 0, below 1e+18; "
            "the one at position 2 is none",
        ),
        (
            TRACELAB + "a,100,9,0,2,250,109\n",
            "trace.csv, line 3, column round_idx: expected 1, the one after line 2 of session "
            "'a', found '2'",
        ),
        (
            TRACELAB + "b,100,9,0,1,250,109\n",
            "trace.csv, line 3, column round_idx: expected 0, its first of session 'b', found '1'",
        ),
        (
            TRACELAB + "a,100,9,0,1,250,-1\n",
            "trace.csv, line 3, column prefix_len: expected an integer >= 0, found '-1'",
        ),
        (
            TRACELAB + "a,100,9,0,1,inf,109\n",
            "trace.csv, line 3, column tool_wait_after_ms: expected a number >= 0, found 'inf'",
        ),
        (
            TRACELAB + "a,2147483647,9,0,1,0,1\n",
            "trace.csv, line 3, column input_len: expected an integer <= 2147483647, found "
            "'1 + 2147483647'",
        ),
        (
            MOONCAKE + '{"timestamp": 1, "input_length": 1, "output_length": 9}\n',
            "trace.csv, line 2, column timestamp: expected a time not before that of line 1, "
            "found one 0.004 s earlier; sort the file by timestamp",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, text: str) -> None:
    assert refusal(tmp_path, content) == text


@pytest.mark.parametrize(
    ("content", "trace_format", "text"),
    [
        ("", "auto", "trace.csv: is empty"),
        (" \n\n", "azure", "trace.csv: is empty"),
        (AZURE.splitlines()[0], "auto", "trace.csv: holds no request"),
        (BURSTGPT.replace(",18", ",0"), "auto", "trace.csv: holds no request"),
        (TRACELAB.splitlines()[0], "auto", "trace.csv: holds no request"),
        (CANARY.splitlines()[0], "auto", "trace.csv: holds no request"),
        (
            "TIMESTAMP,ContextTokens\n",
            "auto",
            "line 1: expected the columns TIMESTAMP, ContextTokens, GeneratedTokens; missing: "
            "GeneratedTokens; found: TIMESTAMP,ContextTokens",
        ),
        (SPLITWISE, "azure", "missing: TIMESTAMP, ContextTokens, GeneratedTokens"),
        (
            "Timestamp,Request tokens,Response tokens,Timestamp\n",
            "auto",
            "line 1: the column Timestamp is there twice",
        ),
        ("when,what\n1,2\n", "auto", "expected the CSV header of a known trace"),
        (AZURE, "parquet", "trace_format='parquet': expected auto or one of azure, bailian"),
        (gzip.compress(AZURE.encode(), mtime=0), "auto", "is gzip-compressed; unpack it"),
        (
            AZURE.encode() + b"\xff\xfe\x00,1,2\n",
            "auto",
            "line 3: expected UTF-8 text, found the byte 0xff",
        ),
        (
            AZURE.encode() + b"\x00,1,2\n",
            "auto",
            "line 3: expected UTF-8 text, found the byte 0x00",
        ),
    ],
)
def test_a_file_that_is_no_such_trace_is_named(
    tmp_path: Path, content: str | bytes, trace_format: str, text: str
) -> None:
    assert text in refusal(tmp_path, content, trace_format)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/none: there is no such trace")):
        load_trace(tmp_path / "none", "auto", 8192)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}: is a folder")):
        load_trace(tmp_path, "auto", 8192)
    with pytest.raises(UserError, match="is no regular file"):
        load_trace(Path("/dev/zero"), "auto", 8192)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    header=st.sampled_from(
        [AZURE, SPLITWISE, BURSTGPT, MOONCAKE, HASHED, BAILIAN, CANARY, TRACELAB, ""]
    ),
    tail=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)),
)
def test_garbage_is_read_or_refused_but_never_crashes(
    tmp_path: Path, header: str, tail: bytes
) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(header.encode() + tail)
    try:
        outcome = len(load_trace(path, "auto", 8192).table)
    except UserError as error:
        outcome = str(error).startswith(str(path))
    assert outcome
