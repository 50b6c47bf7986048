"""Numbers read the same everywhere."""

from __future__ import annotations

import pytest

from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.statistics import Interval, PairedDifference


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"), (0.1234, "0.123"), (9.8765, "9.877"), (12.345, "12.35"),
        (123.45, "123.5"), (12345.6, "12,346"), (None, "–"),
    ],
)  # fmt: skip
def test_numbers_keep_about_four_digits(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_units_follow_the_metric() -> None:
    assert wording.in_unit("tbt_mean_s", 0.0123) == "12.30"
    assert wording.in_unit("ttft_p99_s", 0.0123) == "0.012"
    assert wording.in_unit("slo_attainment", 0.987) == "98.7 %"
    assert wording.interval_in_unit("tbt_p50_s", Interval(0.01, 0.02)) == "[10.00, 20.00]"
    assert wording.interval_in_unit("tbt_p50_s", None) == "–"


def test_changes_are_relative_and_attainment_is_in_points() -> None:
    found = PairedDifference(
        -0.1, Interval(-0.2, 0.05), 0.9, Interval(0.8, 1.05), False, False, True
    )
    assert wording.change("e2e_mean_s", found) == "−10.0 %"
    assert wording.change_interval("e2e_mean_s", found) == "[−20.0, +5.0]"
    assert wording.change("slo_attainment", found) == "−10.0 pp"
    assert wording.change_interval("slo_attainment", found) == "[−20.0, +5.0]"
    assert wording.verdict(found) == "unclear"


def test_shares_of_many_replicas_become_a_range() -> None:
    assert wording.shares((0.5, 0.25, 0.25)) == "50/25/25 %"
    assert wording.shares((0.2, *[0.08] * 10)) == "8.0–20.0 %"


@pytest.mark.parametrize(
    ("win", "loss", "material", "text"),
    [
        (True, False, True, "better"), (True, False, False, "slightly better"),
        (False, True, True, "worse"), (False, True, False, "slightly worse"),
        (False, False, True, "unclear"), (False, False, False, "unclear"),
    ],
)  # fmt: skip
def test_what_is_certain_but_below_relevance_is_called_slight(
    win: bool, loss: bool, material: bool, text: str
) -> None:
    found = PairedDifference(-0.1, Interval(-0.2, -0.1), 0.9, None, win, loss, material)
    assert wording.verdict(found) == text


def test_shares_stand_beside_the_gpus_of_a_mixed_cluster() -> None:
    assert wording.shares((0.2, 0.3, 0.1, 0.4), ("a100",) * 4) == "20/30/10/40 %"
    mixed = ("h100", "a100", "h100", "a100")
    assert wording.shares((0.2, 0.3, 0.1, 0.4), mixed) == "h100 20/10, a100 30/40 %"
    many = wording.shares((0.02,) * 5 + (0.18,) * 5, ("a40",) * 5 + ("h100",) * 5)
    assert many == "a40 2.0–2.0, h100 18.0–18.0 %"
