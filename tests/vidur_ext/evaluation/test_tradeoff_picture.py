"""The trade-off is drawn where it lies, and whom a scheduler serves better is counted right."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.evaluation.report.plots.prompt_lengths import latency_by_prompt, mean_by_prompt
from vidur_ext.evaluation.report.plots.tradeoff import Point, front, mean_against_tail


def test_the_front_is_what_no_other_beats_in_both(small_comparison) -> None:
    one = small_comparison["ppo"]
    points = [Point(one, *at) for at in ((3, 1), (1, 3), (2, 2), (2, 2.5), (3, 2), (1, 4), (4, 1))]
    assert [point[1:] for point in front(points)] == [(1, 3), (2, 2), (3, 1)]


def test_every_scheduler_is_a_point_or_named_as_beyond_the_picture(small_comparison) -> None:
    [axis] = mean_against_tail(small_comparison).axes
    line, *dots = axis.lines
    near = [one for one in small_comparison.schedulers if not one.control]
    places = [(one.pooled["e2e_mean_s"], one.pooled["ttft_p99_s"]) for one in near]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == places
    for one in near:
        assert sum(text.get_text().startswith(one.marked_name + " ") for text in axis.texts) == 1
    assert axis.get_xlabel() == "mean E2E [s]; beyond the picture: always_first ‡"
    ppo = small_comparison["ppo"].pooled
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (ppo["e2e_mean_s"], ppo["ttft_p99_s"]), (
        "the oracle is better, but no rival"
    )


def test_latencies_are_averaged_over_quarters_of_the_prompts(compare, make_run) -> None:
    prompts = {"prefill_tokens": np.array([40, 10, 30, 20])}
    runs = [make_run(name, **prompts) for name in ("ppo", "least_outstanding")]
    comparison = compare(runs, warmup_fraction=0.0)
    classes, e2e = mean_by_prompt(comparison, runs, "ppo", "e2e")
    assert classes == ["10–10", "20–20", "30–30", "40–40"]
    assert e2e.tolist() == [1.0, 5.0, 8.0, 2.5]
    counted, ttft = mean_by_prompt(compare(runs, warmup_fraction=0.25), runs, "ppo", "ttft")
    assert counted == ["10–10", "20–20", "30–30"], "the first request is warm-up"
    assert ttft.tolist() == [1.0, 4.0, 2.0]


def test_prompts_of_one_length_are_one_class(compare, make_run) -> None:
    runs = [make_run(name, prefill_tokens=np.full(4, 7)) for name in ("ppo", "least_outstanding")]
    classes, e2e = mean_by_prompt(compare(runs, warmup_fraction=0.0), runs, "ppo", "e2e")
    assert classes == ["7–7"]
    assert e2e.tolist() == [4.125]


def test_the_change_against_the_best_heuristic_is_drawn(small_comparison, small_runs) -> None:
    for axis, latency in zip(
        latency_by_prompt(small_comparison, small_runs).axes, ("e2e", "ttft"), strict=True
    ):
        _, ours = mean_by_prompt(small_comparison, small_runs, "ppo", latency)
        _, theirs = mean_by_prompt(small_comparison, small_runs, "least_outstanding", latency)
        [drawn] = [line for line in axis.lines if line.get_label() == "ppo"]
        assert drawn.get_ydata() == pytest.approx(100 * (ours / theirs - 1))
