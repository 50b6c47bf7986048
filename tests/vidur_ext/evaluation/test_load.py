"""How loaded a cluster was is worked out by hand; idle and overloaded ones are pointed out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.load import Load, load_of, mean_load
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.run_result import RunResult

# tiny_run, in service: replica 0 in [0, 2.5], [2.5, 10] and [3, 8], replica 1 in [1, 2]; waiting:
# [2, 2.5]; TTFT 0.5 1 2 4.


def test_time_that_requests_share_counts_once_as_busy(make_run) -> None:
    load = load_of(make_run(), 0)
    assert load.busy == pytest.approx((10 + 1) / (2 * 10))
    assert load.in_service == pytest.approx((2.5 + 1 + 7.5 + 5) / (2 * 10))
    assert load.waiting == pytest.approx(0.5 / 10)
    assert load.ttft_halves_s == (0.75, 3.0)


def test_time_before_the_first_counted_arrival_does_not_count(make_run) -> None:
    load = load_of(make_run(), 2)
    assert load.busy == pytest.approx(8 / (2 * 8))
    assert load.in_service == pytest.approx((0.5 + 7.5 + 5) / (2 * 8))
    assert load.waiting == pytest.approx(0.5 / 8)
    assert load.ttft_halves_s == (2.0, 4.0)


def test_a_gap_between_requests_is_not_busy(make_run) -> None:
    done = np.array([0.5, 1.5, 2.5, 4.0])
    times = {"scheduled_at": np.arange(4.0), "prefill_completed_at": done, "completed_at": done}
    run = make_run(num_replicas=1, replica=np.zeros(4, dtype=int), **times)
    assert load_of(run, 0).busy == pytest.approx((0.5 + 0.5 + 0.5 + 1) / 4)


def test_one_counted_request_has_no_halves(make_run) -> None:
    assert load_of(make_run(), 3).ttft_halves_s is None
    assert mean_load([load_of(make_run(), 3)], [5.0]).ttft_halves_s is None


def test_longer_runs_weigh_more() -> None:
    loads = [Load(0.5, 2.0, 1.0, (1.0, 2.0)), Load(1.0, 4.0, 3.0, (3.0, 6.0))]
    assert mean_load(loads, [3.0, 1.0]) == Load(0.625, 2.5, 1.5, (2.0, 4.0))


@pytest.mark.parametrize(
    ("halves", "overloaded"),
    [((1.0, 1.6), True), ((1.0, 1.4), False), ((0.2, 0.9), False), ((5.0, 5.0), False)],
)
def test_overload_is_waiting_that_grows_beyond_the_objective(
    halves: tuple[float, float], overloaded: bool
) -> None:
    assert Load(1.0, 9.0, 9.0, halves).overloaded(ttft_s=1.0) is overloaded


def test_the_report_says_how_loaded_the_cluster_was(small_comparison) -> None:
    load = small_comparison["least_outstanding"].pooled.load
    [line] = [note for note in wording.notes(small_comparison) if note.startswith("Load")]
    assert line.startswith(
        f"Load, with least_outstanding: replicas busy {wording.percent(load.busy)} of the time, "
    )
    assert not warnings(small_comparison)


def test_an_overloaded_cluster_is_a_warning(compare, make_run) -> None:
    runs = [make_run("ppo"), make_run("least_outstanding")]
    [warning] = warnings(compare(runs, warmup_fraction=0.0))
    assert "the cluster is overloaded: with least_outstanding, mean TTFT is 0.750 s" in warning
    assert "3.000 s in the second" in warning


def test_a_cluster_on_which_routing_hardly_matters_is_a_warning(compare, make_random_run) -> None:
    usual = make_random_run("least_outstanding", 0, 1.0)
    mean = float((usual.completed_at - usual.arrived_at)[12:].mean())

    def slower(share: float) -> RunResult:
        later = usual.completed_at + share * mean
        return dataclasses.replace(usual, scheduler="ppo", completed_at=later)

    [warning] = warnings(compare([usual, slower(0.009)], slo_ttft_s=10.0))
    assert "within 1.0 % of each other in mean E2E" in warning
    assert not warnings(compare([usual, slower(0.011)], slo_ttft_s=10.0))


def warnings(comparison: Comparison) -> list[str]:
    return [note for note in wording.notes(comparison) if note.startswith(wording.WARNING)]
