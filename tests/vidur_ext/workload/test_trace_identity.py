"""What trace files tell of texts and sessions reaches the table, and no more than that."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import Sessions
from vidur_ext.workload.trace_files import load_trace


def read(tmp_path: Path, text: str, trace_format: str = "auto") -> RequestTable:
    path = tmp_path / "trace"
    path.write_text(text, encoding="utf-8")
    return load_trace(path, trace_format, 10**6).table


def prompts(table: RequestTable) -> list[list[tuple[int, int]]]:
    assert isinstance(table.prompts, Prompts)
    pairs = zip(table.prompts.segments.tolist(), table.prompts.tokens.tolist(), strict=True)
    listed = list(pairs)
    return [listed[start:stop] for start, stop in pairwise(table.prompts.first.tolist())]


def sessions(table: RequestTable) -> Sessions:
    assert isinstance(table.sessions, Sessions)
    return table.sessions


MOONCAKE = """\
{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [40, 41, 900000000000000000]}
{"timestamp": 1, "input_length": 1024, "output_length": 5, "hash_ids": [40, 41]}
{"timestamp": 2, "input_length": 600, "output_length": 5, "hash_ids": [40, 7]}
"""


def test_equal_hash_ids_are_equal_segments_of_512_tokens_the_last_one_shorter(tmp_path):
    table = read(tmp_path, MOONCAKE)
    seven, forty, forty_one, large = range(4)
    assert prompts(table) == [
        [(forty, 512), (forty_one, 512), (large, 76)],
        [(forty, 512), (forty_one, 512)],
        [(forty, 512), (seven, 88)],
    ]
    assert table.sessions is None


def test_answers_of_hashed_prompts_are_never_found_again(tmp_path):
    table = read(tmp_path, MOONCAKE)
    assert table.prompts is not None
    answers = table.prompts.answers.tolist()
    assert len(set(answers)) == 3
    assert not set(answers) & set(table.prompts.segments.tolist())


def test_files_without_hash_ids_tell_nothing_of_texts(tmp_path):
    text = '{"timestamp": 0, "input_length": 1100, "output_length": 5}\n'
    assert read(tmp_path, text).prompts is None


def chat(chat_id: int, parent: int, turn: int, hashes: list[int]) -> str:
    return (
        f'{{"chat_id": {chat_id}, "parent_chat_id": {parent}, "timestamp": {chat_id}, '
        f'"input_length": {16 * len(hashes)}, "output_length": 9, "turn": {turn}, '
        f'"hash_ids": {hashes}}}\n'
    )


def test_chats_of_bailian_are_followed_to_the_one_that_began_them(tmp_path):
    # The chat 0 was before the file; two of its children are.
    lines = [
        chat(1, -1, 1, [5]), chat(2, 0, 3, [6]), chat(3, 1, 2, [5, 7]), chat(4, 3, 3, [5, 7, 8]),
        chat(5, 0, 3, [6, 9]),
    ]  # fmt: skip
    table = read(tmp_path, "".join(lines))
    assert sessions(table).session.tolist() == [0, 1, 0, 0, 1]
    assert sessions(table).turn.tolist() == [0, 2, 1, 2, 2]
    assert not sessions(table).waits.any()
    assert prompts(table)[3] == [(0, 16), (2, 16), (3, 16)]


def test_canary_files_have_sessions_and_blocks_of_16_tokens(tmp_path):
    text = (
        "arrived_at,num_prefill_tokens,num_decode_tokens,session_id,block_hash_ids\n"
        "0,32,5,7,11|22\n0,40,5,,\n1,33,5,7,11|22|33\n2,20,5,,\n"
    )
    table = read(tmp_path, text)
    rows = prompts(table)
    assert rows[0] == rows[2][:2]
    assert [tokens for _, tokens in rows[1]] == [16, 16, 8]
    known = [segment for segment, _ in rows[0] + rows[1] + rows[3]] + [rows[2][2][0]]
    assert len(set(known)) == len(known)
    assert sessions(table).session.tolist() == [0, 1, 0, 2]
    assert sessions(table).turn.tolist() == [0, 0, 1, 0]


TRACELAB = """\
id,input_len,output_len,arrival_time,round_idx,tool_wait_after_ms,prefix_len
a,100,10,2000,0,500,0
a,40,10,2000,1,4000,110
a,30,10,2000,2,0,105
b,60,20,3000,0,0,50
"""


def test_a_round_of_tracelab_begins_with_what_its_session_said_before(tmp_path):
    rows = prompts(read(tmp_path, TRACELAB))
    # Rows by nominal arrival: a at 2.0 s, a again after 10 tokens of 0.03 s and 0.5 s, b, a.
    first, second, other, third = rows
    assert [tokens for _, tokens in first] == [100]
    assert second[0] == first[0]
    assert [tokens for _, tokens in second] == [100, 10, 40]
    # The third keeps 105 of 160 tokens: the end of the first answer is cut off.
    assert third[0] == first[0]
    assert third[1] == (second[1][0], 5)
    assert [tokens for _, tokens in third] == [100, 5, 30]
    assert [tokens for _, tokens in other] == [110]


def test_the_answer_of_a_round_is_the_segment_that_later_rounds_contain(tmp_path):
    table = read(tmp_path, TRACELAB)
    assert table.prompts is not None
    assert table.prompts.answers[0] == prompts(table)[1][1][0]


def test_rounds_of_tracelab_wait_for_the_answer_and_the_tools(tmp_path):
    table = read(tmp_path, TRACELAB)
    assert table.arrived_at.tolist() == pytest.approx([0.0, 0.8, 1.0, 5.1], rel=1e-12)
    assert sessions(table).session.tolist() == [0, 0, 1, 0]
    assert sessions(table).turn.tolist() == [0, 1, 0, 2]
    assert sessions(table).previous.tolist() == [-1, 0, -1, 1]
    assert sessions(table).think_s.tolist() == [0.0, 0.5, 0.0, 4.0]


def test_prefixes_of_which_nothing_was_said_are_counted(tmp_path):
    path = tmp_path / "trace"
    path.write_text(TRACELAB, encoding="utf-8")
    [note] = load_trace(path, "auto", 10**6).notes
    assert note.startswith("1 prefixes were longer than what was said before")


BURSTGPT = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
0,12,1,GPT-4,100,20,120,Conversation log
1,-1,1,GPT-4,100,20,120,API log
5,12,1,GPT-4,150,10,160,Conversation log
6,-1,1,GPT-4,100,20,120,API log
9,12,1,GPT-4,140,10,150,Conversation log
"""


def test_a_turn_of_burstgpt_that_can_contain_the_one_before_does(tmp_path):
    table = read(tmp_path, BURSTGPT)
    first, api, second, again, third = prompts(table)
    assert second[0] == first[0]
    assert [tokens for _, tokens in second] == [100, 20, 30]
    # 140 tokens cannot hold the 160 before.
    assert [tokens for _, tokens in third] == [140]
    assert len({row[0][0] for row in (first, api, again, third)}) == 4
    assert sessions(table).session.tolist() == [0, 1, 0, 2, 0]
    assert sessions(table).turn.tolist() == [0, 0, 1, 0, 2]


def test_older_files_of_burstgpt_tell_nothing_of_sessions(tmp_path):
    text = "Timestamp,Model,Request tokens,Response tokens\n0,GPT-4,100,20\n"
    table = read(tmp_path, text)
    assert (table.prompts, table.sessions) == (None, None)
