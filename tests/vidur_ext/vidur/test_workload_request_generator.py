"""Vidur gets the very requests of the stream that its flags describe."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from vidur.request_generator import RequestGeneratorRegistry

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.sections import PRESETS
from vidur_ext.vidur import plugin
from vidur_ext.vidur.requests import (
    StreamType,
    WorkloadRequestGenerator,
    WorkloadRequestGeneratorConfig,
    stream_of,
)

SYNTHETIC = WorkloadRequestGeneratorConfig(seed=5, num_requests=300, rate_profile="1.0,1.2")
TEMPLATES = WorkloadRequestGeneratorConfig(seed=5, num_requests=300, source="api_templates")


@pytest.fixture
def recorded(tmp_path: Path) -> Any:
    path = tmp_path / "trace.csv"
    rows = "".join(f"{i * 0.5},{100 + i},{i + 1}\n" for i in range(20))
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows)
    return WorkloadRequestGeneratorConfig(
        source="trace", trace_file=str(path), num_requests=4, holdout_fraction=0.25
    )


def columns(requests: list[Any]) -> list[tuple[float, int, int]]:
    return [(r.arrived_at, r.num_prefill_tokens, r.num_decode_tokens) for r in requests]


@pytest.mark.parametrize("first", [0, 1000])
def test_vidur_gets_the_window_of_the_stream(first: int) -> None:
    config = replace(SYNTHETIC, first_request=first)
    requests = WorkloadRequestGenerator(config).generate()
    table = stream_of(config).window(first, 300)
    expected = zip(table.arrived_at, table.prefill_tokens, table.decode_tokens, strict=True)
    assert columns(requests) == list(expected)
    assert all(type(r.num_prefill_tokens) is int for r in requests)


def test_vidur_finds_the_generator_by_its_type() -> None:
    plugin.register()
    plugin.register()
    generator = RequestGeneratorRegistry.get(StreamType.STREAM, SYNTHETIC)
    assert isinstance(generator, WorkloadRequestGenerator)
    assert str(SYNTHETIC.get_type()) == "stream"


def test_vidur_can_make_flags_of_every_field() -> None:
    for config_field in fields(WorkloadRequestGeneratorConfig):
        assert not isinstance(config_field.type, str), config_field.name
        assert config_field.metadata["help"], config_field.name


@pytest.mark.shows(
    "workload.qps",
    "workload.arrival",
    "workload.burstiness_cv",
    "workload.code_fraction",
    "workload.max_tokens",
    "workload.rate_profile",
    "workload.rate_period",
    "workload.output_tail_index",
)
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"purpose": int(Purpose.EVALUATION_WORKLOAD)},
        {"variant": 1},
        {"qps": 5.0},
        {"arrival": "poisson"},
        {"burstiness_cv": 1.5},
        {"code_fraction": 0.9},
        {"max_tokens": 300},
        {"rate_scale": 2.0},
        {"rate_profile": "0.6,1.1"},
        {"rate_period": 100},
        {"output_tail_index": 1.5},
    ],
)
def test_every_synthetic_flag_changes_the_stream(change: dict[str, Any]) -> None:
    changed = stream_of(replace(SYNTHETIC, **change)).window(0, 300)
    assert changed.digest() != stream_of(SYNTHETIC).window(0, 300).digest()


@pytest.mark.shows("workload.source", "workload.rate_scale")
def test_the_rate_scale_multiplies_the_rate_of_both_sources(recorded: Any) -> None:
    for config, kind in ((SYNTHETIC, "synthetic"), (recorded, "trace")):
        slow = stream_of(config).window(0, 10)
        fast = stream_of(replace(config, rate_scale=4.0)).window(0, 10)
        assert (fast.arrived_at * 4.0).tolist() == pytest.approx(
            slow.arrived_at.tolist(), abs=1e-7
        ), kind
        assert fast.decode_tokens.tolist() == slow.decode_tokens.tolist(), kind


@pytest.mark.shows("workload.length_scale", "workload.source")
def test_presets_are_streams_of_sessions_whose_lengths_can_be_scaled() -> None:
    digests = set()
    for preset in PRESETS:
        config = replace(TEMPLATES, source=preset, max_tokens=2**20)
        window = stream_of(config).window(0, 300)
        half = stream_of(replace(config, length_scale=0.5)).window(0, 300)
        assert half.prefill_tokens.sum() == pytest.approx(window.prefill_tokens.sum() / 2, rel=0.01)
        assert window.prompts is not None
        digests |= {window.digest(), half.digest()}
    assert len(digests) == 2 * len(PRESETS)


@pytest.mark.parametrize(
    "change", [{"qps": 5.0}, {"arrival": "poisson"}, {"burstiness_cv": 1.5}, {"max_tokens": 300}]
)
def test_presets_have_a_rate_a_process_and_a_limit(change: dict[str, Any]) -> None:
    changed = stream_of(replace(TEMPLATES, **change)).window(0, 300)
    assert changed.digest() != stream_of(TEMPLATES).window(0, 300).digest()


def test_vidur_is_told_which_requests_wait_for_which() -> None:
    conversing = replace(TEMPLATES, source="agent")
    requests = WorkloadRequestGenerator(conversing).generate()
    sessions = stream_of(conversing).window(0, len(requests)).sessions
    assert sessions is not None
    assert sessions.waits.any()
    for row, request in enumerate(requests):
        previous = int(sessions.previous[row])
        assert request.awaited is (None if previous < 0 else requests[previous])
        assert request.think_s == sessions.think_s[row]
    assert not any(request.awaited for request in WorkloadRequestGenerator(TEMPLATES).generate())


@pytest.mark.parametrize(
    ("part", "length", "prompts"),
    [("train", None, [100, 101]), ("holdout", 5, [115, 116]), ("all", 20, [100, 101])],
)
def test_the_part_chooses_what_is_replayed(
    recorded: Any, part: str, length: int | None, prompts: list[int]
) -> None:
    stream = stream_of(replace(recorded, part=part))
    assert stream.num_requests == length
    assert stream.window(0, 2).prefill_tokens.tolist() == prompts


@pytest.mark.shows("workload.trace_format", "workload.trace_time_unit")
def test_the_limit_and_the_format_reach_the_reader(recorded: Any) -> None:
    assert stream_of(replace(recorded, max_tokens=50)).window(0, 1).prefill_tokens[0] == 49
    with pytest.raises(UserError, match="missing: TIMESTAMP"):
        stream_of(replace(recorded, trace_format="azure"))
    usual, slow = (stream_of(replace(recorded, trace_time_unit=u)) for u in ("s", "ms"))
    later = slow.window(0, 2).arrived_at[1]
    assert later == pytest.approx(usual.window(0, 2).arrived_at[1] / 1000, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"source": "live"}, 'source = "live": must be one of "synthetic", "trace", "agent"'),
        ({"length_scale": 0.5}, "length_scale has no effect with source='synthetic'"),
        (
            {"source": "chat", "rate_profile": "0.6,1.1"},
            "rate_profile has no effect with source='chat'",
        ),
        (
            {"source": "agent", "rate_profile": "1.0", "output_tail_index": 1.5},
            "output_tail_index has no effect with source='agent'",
        ),
        (
            {"source": "chat", "rate_profile": "1.0", "trace_file": "x"},
            "trace_file has no effect with source='chat'",
        ),
        (
            {"source": "chat", "rate_profile": "1.0", "rate_scale": 100.0},
            "qps=.*: expected a number of requests per",
        ),
        ({"purpose": 77}, r"purpose=77: expected one of 1 \(workload\)"),
        ({"rate_scale": 0.0}, "rate_scale = 0.0: must be a number >= 0.001"),
        ({"source": "trace"}, "source='trace' needs trace_file"),
        (
            {"source": "trace", "trace_file": "x", "max_tokens": 1},
            "max_tokens = 1: must be an integer >= 16",
        ),
        ({"num_requests": 0}, "at least one request"),
        ({"rate_profile": "0.6;1.1"}, "_rate_profile 0.6;1.1: expected numbers with commas"),
        ({"rate_profile": "0.6,0"}, "rate_profile must be from 0.001 to 1000 all over"),
    ],
)
def test_impossible_flags_are_named(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        WorkloadRequestGenerator(replace(SYNTHETIC, **change)).generate()


def test_an_unknown_part_is_named(recorded: Any) -> None:
    with pytest.raises(UserError, match="part='test': expected train, holdout, all"):
        stream_of(replace(recorded, part="test"))
