"""What a run's files say of its policies is told, and a damaged file is refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.judging import learning_of, origin_of
from vidur_ext.evaluation.report.plots.drawing import draw_plots
from vidur_ext.evaluation.report.plots.learning import Learning, Rival, learning_curve
from vidur_ext.run_folder import RunFolder

TAUGHT = {
    "method": "costs",
    "best": 0,
    "history": [{"regret": 0.5, "regret_at_random": 2.0}],
}
CHOSEN = {
    "ttft_weight": 8.0,
    "chosen": {"name": "step 1000", "objective_s": 7.25},
    "scores": [{}, {}],
}
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda child: st.one_of(
        st.lists(child, max_size=2), st.dictionaries(st.text(max_size=4), child, max_size=2)
    ),
    max_leaves=4,
)


def strange(document: dict) -> st.SearchStrategy:
    """Return anything, or the document with anything under one of its keys."""
    changed = st.tuples(st.sampled_from(list(document)), VALUES)
    return st.one_of(VALUES, changed.map(lambda one: {**document, one[0]: one[1]}))


def told(folder, taught: object, chosen: object) -> dict[str, str]:
    run = RunFolder(folder)
    run.warm_start.write_text(json.dumps(taught), encoding="utf-8")
    run.validation.write_text(json.dumps(chosen), encoding="utf-8")
    return origin_of(run)


def test_both_files_are_told(tmp_path):
    origin = told(tmp_path, TAUGHT, CHOSEN)
    assert origin["Warm start"].endswith("after each round 0.500 request-seconds (at random 2.000)")
    assert origin["Policy"].startswith("that of step 1000: of 2 validated the one with")


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "\x00", "[" * 100_000])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, content):
    (tmp_path / "warm_start.json").write_text(content)
    with pytest.raises(UserError, match=r"warm_start\.json: is damaged .* or delete it"):
        origin_of(RunFolder(tmp_path))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(taught=strange(TAUGHT), chosen=strange(CHOSEN))
def test_whatever_stands_in_them_it_is_told_or_refused(tmp_path, taught, chosen):
    try:
        origin = told(tmp_path, taught, chosen)
    except UserError:
        return
    assert all(text.replace("\n", "").isprintable() for text in origin.values())


def score(step: object, e2e_s: object = 5.0, ttft_s: object = 0.5) -> dict[str, object]:
    return {"name": f"step {step}", "global_step": step, "e2e_s": e2e_s, "ttft_s": ttft_s}


def learning(folder, *scores: object, **more: object) -> Learning:
    run = RunFolder(folder)
    document = {**CHOSEN, "chosen": score(1000), "scores": scores, **more}
    run.validation.write_text(json.dumps(document), encoding="utf-8")
    return learning_of(run)


RIVALS = [
    {"name": "least_tokens", "e2e_s": 5.75, "ttft_s": 0.625, "objective_s": 10.125},
    {"name": "lookahead", "e2e_s": 5.25, "ttft_s": 0.375, "objective_s": 7.875},
]


def test_validations_become_a_curve_with_a_star_at_the_policy_that_was_kept(tmp_path):
    found = learning(tmp_path, score(0, 6.0), score(1000, 5.0), score(2000, 5.5))
    assert [one.e2e_s for one in found.validated] == [6.0, 5.0, 5.5]
    for axis, seconds in zip(
        learning_curve(found).axes, ([6.0, 5.0, 5.5], [0.5, 0.5, 0.5]), strict=True
    ):
        first, curve, star = axis.lines
        assert set(first.get_ydata()) == {seconds[0]}
        assert list(curve.get_xdata()) == [0, 1000, 2000]
        assert list(curve.get_ydata()) == seconds
        assert (star.get_marker(), star.get_xdata()[0]) == ("*", 1000)


def test_the_curve_has_a_line_for_each_that_it_is_to_be_compared_with(tmp_path):
    found = learning(tmp_path, score(0), score(1000), rivals=RIVALS)
    assert found.rivals == (Rival("least_tokens", 5.75, 0.625), Rival("lookahead", 5.25, 0.375))
    figure = learning_curve(found)
    for axis, levels in zip(figure.axes, ([5.75, 5.25], [0.625, 0.375]), strict=True):
        lines = {line.get_label(): line for line in axis.lines}
        rivals = [lines["least_tokens"], lines["lookahead"]]
        assert [set(line.get_ydata()) for line in rivals] == [{level} for level in levels]
        assert len({line.get_color() for line in lines.values()}) >= 4
    [legend] = figure.legends
    assert {"least_tokens", "lookahead"} <= {text.get_text() for text in legend.get_texts()}


def test_one_validation_is_no_curve(tmp_path, small_comparison, small_runs):
    assert learning_of(RunFolder(tmp_path)) == Learning()
    two = learning(tmp_path, score(0), score(1000))
    assert "learning.png" in draw_plots(small_comparison, small_runs, two)
    one = Learning(two.validated[:1])
    assert "learning.png" not in draw_plots(small_comparison, small_runs, one)


@pytest.mark.parametrize(
    "strange",
    [{}, 7, score(None), score(-1), score(1, "5"), score(1, float("nan")), score(1, 5.0, 1e300),
     score(10**400), score(1, float("inf"))],
)  # fmt: skip
def test_scores_that_no_curve_can_show_are_refused(tmp_path, strange):
    with pytest.raises(UserError, match=r"validation\.json: is damaged .* or delete it"):
        learning(tmp_path, score(0), strange)


@pytest.mark.parametrize(
    "strange", [7, [7], [{}], [{**RIVALS[0], "name": 3}], [{**RIVALS[0], "e2e_s": float("nan")}]]
)
def test_rivals_that_no_curve_can_show_are_refused(tmp_path, strange):
    with pytest.raises(UserError, match=r"validation\.json: is damaged .* or delete it"):
        learning(tmp_path, score(0), rivals=strange)
