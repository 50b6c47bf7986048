"""The timelines show who had how many requests when, for few replicas and for many."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vidur_ext.evaluation.report.plots.bars import replica_shares
from vidur_ext.evaluation.report.plots.timelines import outstanding, timelines


def test_a_request_is_outstanding_from_its_arrival_to_its_last_token(make_run) -> None:
    # arrived 0, 1, 2, 3; completed 2.5, 2, 10, 8; on replicas 0, 1, 0, 0
    at = np.array([-0.5, 0.0, 1.5, 2.0, 2.5, 3.5, 8.0, 9.0, 10.0])
    counts = outstanding(make_run(), at)
    assert counts.tolist() == [[0, 1, 1, 2, 1, 2, 1, 1, 0], [0, 0, 1, 0, 0, 0, 0, 0, 0]]


def test_policy_and_best_heuristic_are_drawn_on_the_same_axes(small_comparison, small_runs) -> None:
    policy, rival, ranges, _ = timelines(small_comparison, small_comparison["ppo"], small_runs).axes
    for axis, name in ((policy, "ppo"), (rival, "least_outstanding")):
        assert axis.get_title().startswith(f"{name}:")
    assert policy.images[0].get_clim() == rival.images[0].get_clim()
    assert policy.images[0].get_extent() == rival.images[0].get_extent()
    assert policy.get_xlim() == ranges.get_xlim()
    [run] = [run for run in small_runs if (run.scheduler, run.seed) == ("ppo", 0)]
    shown = np.asarray(policy.images[0].get_array())
    at = np.linspace(run.arrived_at[0], policy.images[0].get_extent()[1], shown.shape[1])
    assert np.array_equal(shown, outstanding(run, at))
    assert shown.max() > 0
    medians = {line.get_label(): line for line in ranges.lines}
    assert np.array_equal(medians["ppo"].get_ydata(), np.median(shown, axis=0))


@pytest.mark.parametrize(("replicas", "most"), [(4, 4), (16, 8), (32, 8), (100, 8)])
def test_many_replicas_get_rows_but_not_all_of_them_names(
    compare, make_random_run, replicas: int, most: int
) -> None:
    spread = np.arange(120) % replicas
    runs = [
        dataclasses.replace(make_random_run(name, 0, 1.0), num_replicas=replicas, replica=spread)
        for name in ("ppo", "least_outstanding")
    ]
    comparison = compare(runs)
    figure = timelines(comparison, comparison["ppo"], runs)
    axis = figure.axes[0]
    assert len(axis.images[0].get_array()) == replicas
    assert 4 <= len(axis.get_yticks()) <= most
    assert figure.get_size_inches()[1] < 13


def test_replicas_of_a_mixed_cluster_bear_their_gpus(compare, small_runs) -> None:
    mixed = compare(small_runs, devices=("h100", "a100", "a100"))
    names = [
        label.get_text()
        for label in timelines(mixed, mixed["ppo"], small_runs).axes[0].get_yticklabels()
    ]
    assert names == ["h100 0", "a100 1", "a100 2"]
    figure = replica_shares(mixed)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["h100", "a100"]
    first = [patch.get_facecolor() for patch in figure.axes[0].patches[:3]]
    assert first[0] != first[1] == first[2]
    assert mixed.to_dict()["devices"] == ["h100", "a100", "a100"]


def test_where_all_are_alike_no_gpu_is_named(compare, small_runs) -> None:
    alike = compare(small_runs, devices=("a100",) * 3)
    axis = timelines(alike, alike["ppo"], small_runs).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0", "1", "2"]
    assert not replica_shares(alike).legends
