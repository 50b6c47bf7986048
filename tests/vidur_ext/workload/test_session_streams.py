"""Streams of sessions: what turns share, what they wait for, and what changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.sections import PRESETS
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.session_stream import SessionStream
from vidur_ext.workload.sessions import NOMINAL_TOKEN_S, Sessions

CHAT = SessionStream("chat", 3, Purpose.WORKLOAD, 5.0, "poisson", 1.0, 2**20)
AGENT = replace(CHAT, preset="agent", qps=1.0)
TEMPLATES = replace(CHAT, preset="api_templates")
CONVERSATIONS = pytest.mark.parametrize("stream", [CHAT, AGENT], ids=["chat", "agent"])


def parts(table: RequestTable) -> tuple[Prompts, Sessions]:
    assert table.prompts is not None
    assert table.sessions is not None
    return table.prompts, table.sessions


def prompt(prompts: Prompts, row: int) -> list[tuple[int, int]]:
    piece = slice(prompts.first[row], prompts.first[row + 1])
    return list(zip(prompts.segments[piece].tolist(), prompts.tokens[piece].tolist(), strict=True))


@CONVERSATIONS
def test_a_turn_says_all_that_was_said_before_and_something_new(stream: SessionStream) -> None:
    table = stream.window(9000, 1500)
    prompts, sessions = parts(table)
    rows = np.flatnonzero(sessions.waits)
    assert len(rows) > 200
    for row in rows:
        before = sessions.previous[row]
        answer = (int(prompts.answers[before]), int(table.decode_tokens[before]))
        assert prompt(prompts, row)[:-1] == [*prompt(prompts, before), answer]
        assert sessions.turn[row] == sessions.turn[before] + 1


@CONVERSATIONS
def test_all_prompts_begin_alike_and_sessions_share_no_more(stream: SessionStream) -> None:
    prompts, sessions = parts(stream.window(0, 1000))
    begin, opening = prompts.first[:-1], prompts.first[:-1] + 1
    assert len(set(prompts.segments[begin].tolist())) == 1
    pairs = set(zip(sessions.session.tolist(), prompts.segments[opening].tolist(), strict=True))
    assert len(pairs) == len({session for session, _ in pairs}) == len({text for _, text in pairs})


@CONVERSATIONS
def test_a_turn_nominally_arrives_when_the_answer_is_there_and_the_user_has_thought(
    stream: SessionStream,
) -> None:
    table = stream.window(0, 3000)
    _, sessions = parts(table)
    rows = np.flatnonzero(sessions.waits)
    before = sessions.previous[rows]
    gap_s = table.arrived_at[rows] - table.arrived_at[before]
    full_s = NOMINAL_TOKEN_S * table.decode_tokens[before] + sessions.think_s[rows]
    # Long sessions are shortened, all else is exact but for rounded tokens.
    assert (gap_s <= full_s + 0.02).all()
    assert (np.abs(gap_s - full_s) <= 0.02).mean() > 0.8


def test_templates_share_their_opening_alone_and_wait_for_nobody() -> None:
    table = TEMPLATES.window(0, 2000)
    assert table.sessions is None
    assert table.prompts is not None
    prompts = table.prompts
    assert (np.diff(prompts.first) == 2).all()
    templates, texts = prompts.segments.reshape(-1, 2).T
    assert len(set(texts.tolist())) == 2000
    assert 100 < len(set(templates.tolist())) < 1500


@pytest.mark.parametrize("preset", PRESETS)
def test_a_stream_has_no_beginning_and_no_end(preset: str) -> None:
    stream = replace(CHAT, preset=preset, qps=3.0)
    seconds = [stream.window(start, 3000).arrived_at[-1] for start in (0, 10**6)]
    assert seconds == pytest.approx([1000.0, 1000.0], rel=0.15)
    if preset != "api_templates":
        first, later = (parts(stream.window(start, 300))[1].turn for start in (0, 10**6))
        # Sessions that began before the stream are under way.
        assert first.max() > 3
        assert (first > 0).mean() == pytest.approx((later > 0).mean(), abs=0.15)


def test_a_session_begun_before_the_window_goes_on_at_nominal_times() -> None:
    whole, part = CHAT.window(0, 3000), CHAT.window(1000, 2000)
    sessions = parts(part)[1]
    orphans = (sessions.turn > 0) & ~sessions.waits
    assert orphans.sum() > 20
    nominal = (whole.arrived_at - whole.arrived_at[999])[1000:]
    assert part.arrived_at[orphans].tolist() == nominal[orphans].tolist()


def test_the_scale_shortens_texts_and_answers_and_nothing_else() -> None:
    whole, half = CHAT.window(500, 800), replace(CHAT, length_scale=0.5).window(500, 800)
    assert half.arrived_at.tolist() == whole.arrived_at.tolist()
    assert parts(half)[0].segments.tolist() == parts(whole)[0].segments.tolist()
    assert parts(half)[1].think_s.tolist() == parts(whole)[1].think_s.tolist()
    ratio = half.prefill_tokens.sum() / whole.prefill_tokens.sum()
    assert ratio == pytest.approx(0.5, rel=1e-3)
    assert (np.abs(half.decode_tokens - whole.decode_tokens / 2) <= 0.75).all()


def test_the_limit_cuts_prompts_at_their_ends_and_nothing_else() -> None:
    limited = replace(CHAT, max_tokens=4096).window(500, 800)
    assert limited.digest() == CHAT.window(500, 800).limited(4096)[0].digest()
    assert (limited.prefill_tokens + limited.decode_tokens).max() == 4096


@pytest.mark.parametrize("change", [{"qps": 50.0}, {"arrival": "gamma", "burstiness_cv": 4.0}])
def test_another_rate_or_process_leaves_sessions_as_they_are(change: dict[str, Any]) -> None:
    def by_session(table: RequestTable) -> dict[int, tuple[int, ...]]:
        """Return the first prompt of every session that begins in the table."""
        prompts, sessions = parts(table)
        rows = np.flatnonzero(sessions.turn == 0)
        return {int(sessions.session[row]): tuple(prompt(prompts, row)) for row in rows}

    one = by_session(CHAT.window(0, 6000))
    other = by_session(replace(CHAT, **change).window(0, 6000))
    assert len(one.keys() & other.keys()) > 1000
    assert all(one[name] == other[name] for name in one.keys() & other.keys())


def test_think_times_do_not_depend_on_the_rate() -> None:
    # Of the same time: a longer one has longer waits.
    slow, fast = (
        parts(replace(CHAT, qps=qps).window(0, int(2000 * qps)))[1] for qps in (4.0, 16.0)
    )
    assert np.median(fast.think_s[fast.waits]) == pytest.approx(
        np.median(slow.think_s[slow.waits]), rel=0.15
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"qps": 1001.0}, "qps=1001.0: expected a number of requests per second above 0, at most"),
        ({"qps": 0.0}, "qps=0.0"),
        ({"arrival": "weibull"}, "arrival='weibull': expected poisson or gamma"),
        ({"burstiness_cv": 0.0}, "burstiness_cv=0.0"),
        ({"length_scale": 1.5}, "length_scale=1.5: expected a number above 0, at most 1"),
        ({"max_tokens": 1}, "max_tokens=1"),
        ({"seed": -1}, "seed=-1"),
        ({"variant": -1}, "variant=-1"),
    ],
)
def test_impossible_values_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        replace(CHAT, **change)
