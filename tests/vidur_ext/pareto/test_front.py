"""Ratios, fronts and the choice of L, worked by hand."""

from __future__ import annotations

import pytest

from vidur_ext.pareto.front import Front, Latencies, Tradeoff, front_of
from vidur_ext.pareto.plot import draw_plot
from vidur_ext.pareto.report import headlines, render_page

BEST = Latencies(e2e_mean_s=5.0, ttft_p99_s=2.0)


def front(*measured: tuple[float, float, float]) -> Front:
    """Return the front of (L, mean E2E, p99 TTFT)."""
    return front_of("lookahead", BEST, {weight: Latencies(*ours) for weight, *ours in measured})


def test_figures_are_ratios_to_the_best_heuristic():
    (point,) = front((3.0, 4.5, 3.0)).points
    assert (point.weight, point.e2e, point.ttft_p99) == (3.0, 0.9, 1.5)


def test_the_smallest_weight_within_the_limit_is_taken_even_if_another_is_better():
    # p99 TTFT: x1.5, exactly x1.1, x1.0; and a later one that has the lowest mean E2E of all.
    one = front((3, 4.5, 3.0), (5, 4.7, 2.2), (10, 4.8, 2.0), (15, 4.4, 2.1))
    assert one.smallest_within == 5


def test_weights_are_taken_by_size_not_in_the_order_they_were_measured():
    assert front((10, 4.8, 2.0), (5, 4.7, 2.1)).smallest_within == 5


def test_no_weight_is_taken_if_all_are_beyond_the_limit():
    one = front((3, 4.5, 3.0), (5, 4.6, 2.3))
    assert one.smallest_within is None
    (line,) = headlines(Tradeoff("least_tokens", BEST, (one,), {}))
    assert line.startswith("lookahead: no L of the grid keeps p99 TTFT within 1.1 times")


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        # Each better in one figure: all are on the front.
        ([(3, 4.5, 3.0), (5, 4.7, 2.2)], [3, 5]),
        # As good in one and better in the other is better.
        ([(3, 4.5, 3.0), (5, 4.5, 2.2)], [5]),
        ([(3, 4.5, 2.2), (5, 4.7, 2.2)], [3]),
        # Equal in both: neither is better.
        ([(3, 4.5, 2.2), (5, 4.5, 2.2)], [3, 5]),
        ([(3, 4.9, 3.0), (5, 4.7, 2.2), (7, 4.8, 2.1)], [5, 7]),
    ],
)
def test_what_another_weight_beats_is_not_on_the_front(measured, expected):
    one = front(*measured)
    assert [point.weight for point in one.points if one.on_front(point)] == expected


def test_the_page_says_which_weight_is_taken_and_escapes_what_is_named():
    one = front((3, 4.5, 3.0), (5, 4.75, 2.0))
    page = render_page(Tradeoff("least_tokens", BEST, (one,), {"Cluster": "<script>"}))
    assert "lookahead: L = 5 is the smallest of the grid" in page
    assert "mean E2E −5.0 %" in page
    assert "<script>" not in page


def test_equal_results_are_drawn_with_equal_bytes_and_others_are_not():
    def drawn(*measured: tuple[float, float, float]) -> bytes:
        return draw_plot(Tradeoff("least_tokens", BEST, (front(*measured),), {}))

    one = (3, 4.5, 3.0), (5, 4.75, 2.0)
    assert drawn(*one) == drawn(*one)
    assert drawn(*one) != drawn((3, 4.5, 3.0), (5, 4.75, 2.1))
