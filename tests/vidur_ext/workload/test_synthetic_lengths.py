"""Synthetic lengths have the statistics that are published of the Azure traces of 2023."""

from __future__ import annotations

import numpy as np
import pytest
from fit_lengths import (
    joint_counts,
    ks_distance,
    quantiles,
    total_variation,
)

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.workload import azure_2023
from vidur_ext.workload.synthetic import SyntheticStream, Tokens, draw_lengths

DRAWS = 200_000


@pytest.fixture(scope="module")
def conversation() -> tuple[Tokens, Tokens]:
    return draw_lengths(generator(7, Purpose.WORKLOAD), DRAWS, code_fraction=0.0)


@pytest.fixture(scope="module")
def code() -> tuple[Tokens, Tokens]:
    return draw_lengths(generator(7, Purpose.WORKLOAD), DRAWS, code_fraction=1.0)


def test_conversation_prompts_are_as_in_the_trace(conversation: tuple[Tokens, Tokens]) -> None:
    prompt, _ = conversation
    assert np.median(prompt) == pytest.approx(1020, rel=0.01)
    assert prompt.mean() == pytest.approx(1154.7, rel=0.01)
    assert np.percentile(prompt, [5, 25, 75, 95]) == pytest.approx([181, 396, 1189, 4083], rel=0.04)


def test_conversation_outputs_are_as_in_the_trace(conversation: tuple[Tokens, Tokens]) -> None:
    _, output = conversation
    assert np.median(output) == pytest.approx(129, rel=0.02)
    assert output.mean() == pytest.approx(211.1, rel=0.01)
    assert np.percentile(output, [5, 25, 75, 95]) == pytest.approx([41, 85, 395, 451], rel=0.04)
    assert output.max() <= 1000


def test_medium_prompts_get_long_answers_and_long_prompts_short_ones(
    conversation: tuple[Tokens, Tokens],
) -> None:
    prompt, output = conversation
    # Means of the trace's requests with such prompts: 149, 408 and 78 output tokens.
    short, medium, long = prompt < 235, (prompt >= 1025) & (prompt < 1190), prompt >= 2310
    assert output[short].mean() == pytest.approx(148.6, rel=0.08)
    assert output[medium].mean() == pytest.approx(408.2, rel=0.08)
    assert output[long].mean() == pytest.approx(78.3, rel=0.08)


def test_the_joint_ranks_are_those_of_the_fit(conversation: tuple[Tokens, Tokens]) -> None:
    fitted = np.array(azure_2023.CONVERSATION_JOINT)
    drawn = joint_counts(*conversation)
    assert total_variation(drawn, fitted) < 0.02
    assert total_variation(np.ones_like(fitted), fitted) == pytest.approx(0.496, abs=0.001)


def test_code_prompts_have_the_published_median_mean_and_limit(
    code: tuple[Tokens, Tokens],
) -> None:
    prompt, _ = code
    assert np.median(prompt) == pytest.approx(1500, rel=0.02)
    assert prompt.mean() == pytest.approx(2048, rel=0.02)
    assert prompt.max() == 7437


def test_code_outputs_have_the_published_median_and_mean(code: tuple[Tokens, Tokens]) -> None:
    _, output = code
    assert np.median(output) == pytest.approx(13, abs=0.5)
    assert output.mean() == pytest.approx(28, rel=0.03)
    assert output.min() == 6


def test_the_code_fraction_mixes_both(
    conversation: tuple[Tokens, Tokens], code: tuple[Tokens, Tokens]
) -> None:
    prompt, output = draw_lengths(generator(7, Purpose.WORKLOAD), DRAWS, code_fraction=0.25)
    is_code = (prompt == code[0]) & (output == code[1])
    is_conversation = (prompt == conversation[0]) & (output == conversation[1])
    assert (is_code | is_conversation).all()
    assert is_code.mean() == pytest.approx(0.25, abs=0.01)


def outputs(tail_index: float | None, max_tokens: int) -> Tokens:
    stream = SyntheticStream(
        7, Purpose.WORKLOAD, 20.0, "gamma", 2.0, 0.2, max_tokens, output_tail_index=tail_index
    )
    return stream.window(0, DRAWS).decode_tokens


def test_a_tail_multiplies_outputs_by_pareto_numbers() -> None:
    plain, heavy = outputs(None, 10**9), outputs(2.0, 10**9)
    # Rounding matters little for outputs of 100 tokens and more.
    factors = (heavy / plain)[plain >= 100]
    assert factors.min() >= 1.0
    # A Pareto number of index 2 is above x with probability x^-2.
    for threshold, share in ((2.0, 0.25), (5.0, 0.04), (10.0, 0.01)):
        assert (factors > threshold).mean() == pytest.approx(share, rel=0.05)


def test_a_tail_ends_at_the_longest_request_allowed() -> None:
    heavy = outputs(1.5, 8192)
    assert heavy.max() == 8191
    assert 0.001 < (heavy == 8191).mean() < 0.01
    assert np.sort(heavy)[-DRAWS // 100 :].sum() > 0.12 * heavy.sum()


def test_the_fit_finds_quantiles_and_dependence_of_its_data() -> None:
    prompt = np.repeat(np.arange(1, 1001), 8)
    assert dict(zip(azure_2023.PROBABILITIES, quantiles(prompt), strict=True))[0.5] == 500
    assert quantiles(prompt)[[0, -1]].tolist() == [1, 1000]
    assert joint_counts(prompt, prompt, grid=4).tolist() == (np.eye(4) * 2000).tolist()
    assert joint_counts(prompt, -prompt, grid=4).tolist() == (np.eye(4)[::-1] * 2000).tolist()


def test_ks_distance_of_known_samples() -> None:
    sample = np.array([1, 2, 3, 4])
    assert ks_distance(sample, sample[::-1]) == 0.0
    assert ks_distance(sample, sample + 4) == 1.0
    assert ks_distance(sample, sample + 1) == pytest.approx(0.25)
