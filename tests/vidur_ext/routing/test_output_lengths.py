"""How long an output is expected to be: by hand, and against what was completed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidur_ext.routing.estimator import Estimates, Rate
from vidur_ext.routing.output_lengths import expected_output, learn_length, new_lengths

SOME = settings(max_examples=50, deadline=None)
TOKENS = st.integers(1, 10_000)


def prior(mean: float = 4.0, weight: float = 2.0) -> Estimates:
    return Estimates(np.zeros((1, 2)), np.zeros((1, len(Rate))), 512.0, mean * weight, weight)


def learned(*completed: tuple[int, int]) -> np.ndarray:
    """Return what (prompt, output) of completed requests teach."""
    lengths = new_lengths()
    for prompt, output in completed:
        learn_length(lengths, prompt, output)
    return lengths


def test_without_completions_the_prior_is_memoryless():
    nothing = new_lengths()
    assert [expected_output(nothing, prior(), 100, g) for g in (0, 1, 10, 5000)] == [
        4, 5, 14, 5004,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "generated", "expected"),
    [
        # All together: (2 * 4 + 20 + 20 + 40) / (2 + 3) = 17.6, weighing 4 beside a bin's own.
        (100, 0, 18),  # (4 * 17.6 + 20 + 20) / (4 + 2) = 18.4
        (1000, 0, 22),  # (4 * 17.6 + 40) / (4 + 1) = 22.08
        (5, 0, 18),  # nothing of its own: 17.6
        # Of the prior exp(-20 / 4) is left, 0.0135 requests of 24 tokens, and of the others 40.
        (100, 20, 40),  # (0.0135 * 24 + 40) / 1.0135 = 39.8
        (1000, 20, 40),  # (4 * 39.8 + 40) / (4 + 1) = 39.8
        # Nobody had more than 40.
        (1000, 40, 44),
    ],
)
def test_expectations_are_those_worked_out_by_hand(prompt, generated, expected):
    lengths = learned((100, 20), (100, 20), (1000, 40))
    assert expected_output(lengths, prior(), prompt, generated) == expected


@SOME
@given(
    completed=st.lists(st.tuples(TOKENS, TOKENS), max_size=30),
    prompt=TOKENS,
    generated=st.integers(0, 200_000),
)
def test_at_least_one_token_is_to_come(completed, prompt, generated):
    assert expected_output(learned(*completed), prior(), prompt, generated) > generated


@SOME
@given(completed=st.lists(st.tuples(TOKENS, TOKENS), max_size=30), prompt=TOKENS)
def test_the_order_of_completions_does_not_matter(completed, prompt):
    lengths, reversed_order = learned(*completed), learned(*reversed(completed))
    assert lengths.tobytes() == reversed_order.tobytes()
    parts = learned(*completed[:10]) + learned(*completed[10:])
    assert parts.tobytes() == lengths.tobytes()


@pytest.fixture(scope="module")
def two_kinds() -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Return the outputs of short and of long prompts, and what they teach."""
    rng = np.random.default_rng(0)
    outputs = {
        100: 1 + rng.geometric(1 / 300, 20_000),
        3000: 1 + rng.lognormal(4.0, 0.5, 20_000).astype(np.int64),
    }
    pairs = [(prompt, int(output)) for prompt, many in outputs.items() for output in many]
    return outputs, learned(*pairs)


@pytest.mark.parametrize("prompt", [100, 3000])
@pytest.mark.parametrize("generated", [0, 7, 40, 100])
def test_many_completions_teach_their_own_conditional_mean(two_kinds, prompt, generated):
    outputs, lengths = two_kinds
    longer = outputs[prompt][outputs[prompt] > generated]
    # Outputs that end in the bin of the present length, an eighth of an octave, do not count.
    resolution = generated / 8
    assert expected_output(lengths, prior(128.0, 16.0), prompt, generated) == pytest.approx(
        longer.mean(), rel=0.01, abs=resolution
    )


@pytest.mark.parametrize("prompt", [100, 3000])
def test_who_has_said_more_is_expected_to_say_more_in_all(two_kinds, prompt):
    outputs, lengths = two_kinds
    common = int(np.quantile(outputs[prompt], 0.99))
    expected = [expected_output(lengths, prior(128.0, 16.0), prompt, g) for g in range(common)]
    assert (np.diff(expected) >= 0).all()
