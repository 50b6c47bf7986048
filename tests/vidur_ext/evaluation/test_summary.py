"""Every figure of a summary equals the one worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.evaluation.metrics import (
    CountedRun,
    Objectives,
    Summary,
    summarize,
    summarize_pooled,
)
from vidur_ext.evaluation.run_result import RunResult

OBJECTIVES = Objectives(ttft_s=1.5, tbt_s=0.5)
# tiny_run: TTFT 0.5 1 2 4; E2E 2.5 1 8 5; TBT 2/4 - 6/3 1/2; objectives met by the first two.


def counted(run: RunResult, warmup_fraction: float = 0.0) -> CountedRun:
    return CountedRun.of(run, warmup_fraction, OBJECTIVES)


def test_latencies_by_hand(make_run) -> None:
    summary = summarize(counted(make_run()))
    assert summary["ttft_mean_s"] == pytest.approx(7.5 / 4)
    assert summary["ttft_p50_s"] == pytest.approx(1.5)
    assert summary["ttft_p90_s"] == pytest.approx(2 + 0.7 * 2)
    assert summary["ttft_p99_s"] == pytest.approx(2 + 0.97 * 2)
    assert summary["e2e_mean_s"] == pytest.approx(16.5 / 4)
    assert summary["e2e_p50_s"] == pytest.approx(3.75)
    assert summary["e2e_p99_s"] == pytest.approx(5 + 0.97 * 3)


def test_time_between_tokens_leaves_out_requests_of_one_token(make_run) -> None:
    summary = summarize(counted(make_run()))
    assert summary["tbt_mean_s"] == pytest.approx((0.5 + 2 + 0.5) / 3)
    assert summary["tbt_p50_s"] == pytest.approx(0.5)
    assert summary["tbt_p90_s"] == pytest.approx(0.5 + 0.8 * 1.5)


def test_slo_attainment_counts_requests_within_both_objectives(make_run) -> None:
    assert summarize(counted(make_run()))["slo_attainment"] == 0.5
    strict = CountedRun.of(make_run(), 0.0, Objectives(ttft_s=1.5, tbt_s=0.4))
    # The second request has one token, hence no gap that could be too long.
    assert summarize(strict)["slo_attainment"] == 0.25
    fast = CountedRun.of(make_run(), 0.0, Objectives(ttft_s=0.7, tbt_s=9.0))
    assert summarize(fast)["slo_attainment"] == 0.25


def test_throughput_shares_and_imbalance(make_run) -> None:
    summary = summarize(counted(make_run()))
    assert summary.makespan_s == 10.0
    assert summary.requests_per_s == pytest.approx(0.4)
    assert summary.output_tokens_per_s == pytest.approx(13 / 10)
    assert summary.replica_shares == (0.75, 0.25)
    assert summary.imbalance == pytest.approx(1.5)


def test_an_unused_replica_is_part_of_the_shares(make_run) -> None:
    summary = summarize(counted(make_run(replica=np.zeros(4, dtype=int), num_replicas=3)))
    assert summary.replica_shares == (1.0, 0.0, 0.0)
    assert summary.imbalance == 3.0


def test_the_warm_up_is_left_out(make_run) -> None:
    summary = summarize(counted(make_run(), warmup_fraction=0.5))
    assert summary.requests == 2
    assert summary["e2e_mean_s"] == pytest.approx(6.5)
    assert summary.makespan_s == pytest.approx(8.0)
    assert summary.output_tokens_per_s == pytest.approx(7 / 8)
    assert summary.replica_shares == (1.0, 0.0)


def test_without_second_tokens_there_is_no_tbt_rather_than_nan(make_run) -> None:
    run = make_run(decode_tokens=np.ones(4, dtype=int), completed_at=np.array([0.5, 2.0, 4.0, 7.0]))
    summary = summarize(counted(run))
    assert summary["tbt_mean_s"] is None
    assert summary["tbt_p99_s"] is None
    assert summary["ttft_mean_s"] == summary["e2e_mean_s"]


def pooled_pair(make_run) -> Summary:
    second = make_run(seed=1, replica=np.array([1, 1, 1, 1]), decisions_per_second=50.0)
    return summarize_pooled([counted(make_run()), counted(second)])


def test_pooling_takes_percentiles_over_all_requests(make_run) -> None:
    longer = make_run(seed=1, completed_at=np.array([12.5, 12.0, 18.0, 13.0]))
    pooled = summarize_pooled([counted(make_run()), counted(longer)])
    together = [2.5, 1, 8, 5, 12.5, 11, 16, 10]
    assert pooled["e2e_mean_s"] == pytest.approx(np.mean(together))
    assert pooled["e2e_p90_s"] == pytest.approx(np.quantile(together, 0.9))


def test_pooled_rates_divide_total_counts_by_total_time(make_run) -> None:
    pooled = pooled_pair(make_run)
    assert pooled.requests == 8
    assert pooled.requests_per_s == pytest.approx(8 / 20)
    assert pooled.output_tokens_per_s == pytest.approx(26 / 20)
    assert pooled.decisions_per_second == pytest.approx(8 / (4 / 100 + 4 / 50))


def test_taking_turns_at_being_overloaded_is_not_balance(make_run) -> None:
    pooled = pooled_pair(make_run)
    assert pooled.replica_shares == pytest.approx((0.375, 0.625))
    assert pooled.imbalance == pytest.approx((1.5 + 2.0) / 2)
