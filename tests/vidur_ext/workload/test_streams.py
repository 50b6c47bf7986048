"""Laws of request streams, and the statistics they are fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.workload.request_table import RequestTable, fit_into
from vidur_ext.workload.streams import (
    demonstration_table,
    describe_workload,
    evaluation_table,
    workload_stream,
)
from vidur_ext.workload.synthetic import SyntheticStream
from vidur_ext.workload.trace_stream import TraceStream


def synthetic(**changes: object) -> SyntheticStream:
    keys = {
        "seed": 1,
        "purpose": Purpose.WORKLOAD,
        "qps": 20.0,
        "arrival": "gamma",
        "burstiness_cv": 2.0,
        "code_fraction": 0.2,
        "max_tokens": 8192,
        **changes,
    }
    return SyntheticStream(**keys)


def trace(count: int = 40, **keys: bool) -> TraceStream:
    rng = np.random.default_rng(0)
    return TraceStream(
        RequestTable(
            np.cumsum(rng.random(count)), rng.integers(1, 99, count), rng.integers(1, 99, count)
        ),
        **keys,
    )


def gaps(table: RequestTable) -> np.ndarray:
    return np.diff(table.arrived_at, prepend=0.0)


@settings(deadline=None, max_examples=25)
@given(start=st.integers(0, 3000), first=st.integers(1, 1500), second=st.integers(1, 1500))
@pytest.mark.parametrize("stream", [synthetic(), trace(repeat=True)], ids=["synthetic", "trace"])
def test_windows_are_slices_of_one_stream(stream, start, first, second):
    whole = stream.window(start, first + second)
    left, right = stream.window(start, first), stream.window(start + first, second)
    np.testing.assert_array_equal(
        whole.prefill_tokens, np.concatenate([left.prefill_tokens, right.prefill_tokens])
    )
    np.testing.assert_array_equal(
        whole.decode_tokens, np.concatenate([left.decode_tokens, right.decode_tokens])
    )
    np.testing.assert_allclose(gaps(whole), np.concatenate([gaps(left), gaps(right)]), atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"purpose": Purpose.EVALUATION_WORKLOAD},
        {"variant": 1},
        {"qps": 10.0},
        {"arrival": "poisson"},
        {"burstiness_cv": 1.0},
        {"code_fraction": 0.8},
        {"max_tokens": 512},
    ],
)
def test_everything_that_describes_a_stream_changes_it(change):
    usual, changed = synthetic().window(0, 200), synthetic(**change).window(0, 200)
    assert not all(
        np.array_equal(getattr(usual, name), getattr(changed, name))
        for name in ("arrived_at", "prefill_tokens", "decode_tokens")
    )


@pytest.mark.parametrize(("arrival", "cv"), [("poisson", 1.0), ("gamma", 2.0), ("gamma", 0.5)])
def test_arrivals_have_the_rate_and_burstiness_asked_for(arrival, cv):
    seen = gaps(synthetic(arrival=arrival, burstiness_cv=cv).window(0, 40_000))
    assert seen.mean() == pytest.approx(1 / 20, rel=0.03)
    assert seen.std() / seen.mean() == pytest.approx(cv, rel=0.05)


def test_conversations_have_the_lengths_of_the_azure_trace():
    seen = synthetic(code_fraction=0.0, max_tokens=16_384).window(0, 40_000)
    assert np.median(seen.prefill_tokens) == pytest.approx(1020, rel=0.03)
    assert seen.prefill_tokens.mean() == pytest.approx(1155, rel=0.05)
    assert np.median(seen.decode_tokens) == pytest.approx(129, rel=0.05)
    assert seen.decode_tokens.mean() == pytest.approx(211, rel=0.03)


def test_code_requests_have_the_published_lengths():
    seen = synthetic(code_fraction=1.0, max_tokens=65_536).window(0, 40_000)
    assert np.median(seen.prefill_tokens) == pytest.approx(1500, rel=0.03)
    assert seen.prefill_tokens.mean() == pytest.approx(2048, rel=0.05)
    assert np.median(seen.decode_tokens) == pytest.approx(13, rel=0.08)
    assert seen.decode_tokens.mean() == pytest.approx(28, rel=0.06)


@given(
    prompt=st.lists(st.integers(1, 10**6), min_size=1, max_size=20),
    output=st.integers(1, 10**6),
    limit=st.integers(16, 10**5),
)
def test_cut_requests_fit_and_short_ones_are_left_alone(prompt, output, limit):
    prefill, decode = fit_into(np.array(prompt), np.full(len(prompt), output), limit)
    assert (prefill + decode <= limit).all()
    assert (prefill >= 1).all()
    assert (decode >= 1).all()
    short = np.array(prompt) + output <= limit
    np.testing.assert_array_equal(prefill[short], np.array(prompt)[short])


def test_a_finite_stream_ends_with_a_message():
    with pytest.raises(UserError, match="the stream has 40 only"):
        trace().window(30, 11)


def test_training_and_held_out_parts_share_no_request():
    training, held_out = trace().split(0.25)
    assert len(training.table) == 30
    assert held_out.num_requests == 10
    assert training.table.arrived_at[-1] < held_out.table.arrived_at[0]


def test_a_trace_too_short_to_split_is_refused():
    with pytest.raises(UserError, match="both parts need two requests"):
        trace(4).split(0.1)


def test_rates_scale_times_and_nothing_else():
    table = synthetic().window(0, 50)
    faster = table.at_rate(4.0)
    np.testing.assert_allclose(faster.arrived_at, table.arrived_at / 4)
    np.testing.assert_array_equal(faster.prefill_tokens, table.prefill_tokens)


@pytest.mark.parametrize(
    "columns",
    [
        ([1.0, 0.5], [1, 1], [1, 1]),
        ([0.0, 1.0], [0, 1], [1, 1]),
        ([0.0, 1.0], [1, 1], [1, 0]),
        ([0.0, 1.0], [1], [1, 1]),
    ],
)
def test_impossible_tables_are_refused(columns):
    with pytest.raises(UserError):
        RequestTable(*(np.array(column) for column in columns))


def config(**workload: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"workload": workload})


def test_training_demonstrations_and_held_out_workloads_differ():
    tables = [
        workload_stream(config(), Purpose.WORKLOAD).window(0, 50),
        demonstration_table(config(), 0, 50, 1.0),
        demonstration_table(config(), 1, 50, 1.0),
        evaluation_table(config(), 0).rows(0, 50),
        evaluation_table(config(), 1).rows(0, 50),
    ]
    assert len({table.prefill_tokens.tobytes() for table in tables}) == len(tables)


def test_load_levels_scale_demonstrations():
    slow, fast = (demonstration_table(config(), 0, 50, level) for level in (0.5, 1.0))
    np.testing.assert_allclose(slow.arrived_at, 2 * fast.arrived_at)


def write_trace(tmp_path, count: int = 100) -> str:
    path = tmp_path / "trace.csv"
    rows = [f"{i * 0.5},{100 + i},{10}" for i in range(count)]
    path.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *rows]))
    return str(path)


def test_held_out_windows_of_a_trace_do_not_overlap(tmp_path):
    traced = config(source="trace", trace_file=write_trace(tmp_path, 300))
    prompts = [set(evaluation_table(traced, seed).prefill_tokens.tolist()) for seed in range(3)]
    assert all(len(seen) == 20 for seen in prompts)
    assert not prompts[0] & prompts[1]
    trained = set(workload_stream(traced, Purpose.WORKLOAD).window(0, 240).prefill_tokens.tolist())
    assert not trained & set.union(*prompts)


def test_a_trace_too_short_for_the_comparison_is_refused(tmp_path):
    traced = config(source="trace", trace_file=write_trace(tmp_path, 100))
    with pytest.raises(UserError, match="held-out part has 20 requests"):
        evaluation_table(traced, 0)


def test_rate_scale_speeds_a_trace_up(tmp_path):
    path = write_trace(tmp_path)
    usual = workload_stream(config(source="trace", trace_file=path), Purpose.WORKLOAD)
    doubled = workload_stream(
        config(source="trace", trace_file=path, rate_scale=2.0), Purpose.WORKLOAD
    )
    assert doubled.window(0, 50).arrived_at[-1] == usual.window(0, 50).arrived_at[-1] / 2


def test_holdout_fraction_moves_the_border(tmp_path):
    path = write_trace(tmp_path, 400)
    for fraction, first in ((0.2, 420), (0.5, 300)):
        traced = config(source="trace", trace_file=path, holdout_fraction=fraction)
        assert evaluation_table(traced, 0).prefill_tokens[0] == first


def test_the_description_names_what_matters(tmp_path):
    assert describe_workload(config()).startswith("22 requests/s, Gamma arrivals (cv 2)")
    assert "Poisson" in describe_workload(config(arrival="poisson"))
    path = write_trace(tmp_path, 300)
    text = describe_workload(config(source="trace", trace_file=path))
    assert path in text
    assert "3 x 20 requests held out" in text
