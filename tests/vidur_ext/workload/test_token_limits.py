"""Requests are cut to the context limit: outputs only where nothing else helps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.seeding import Purpose
from vidur_ext.workload.request_table import limit_tokens
from vidur_ext.workload.synthetic import SyntheticStream

tokens = st.integers(1, 5000)


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=30), st.integers(2, 6000))
def test_every_request_fits_and_none_is_cut_without_need(
    requests: list[tuple[int, int]], limit: int
) -> None:
    prompt, output = (np.array(column) for column in zip(*requests, strict=True))
    limited = limit_tokens(prompt, output, limit)
    total = limited.prefill + limited.decode
    assert (total <= limit).all()
    assert (limited.prefill >= 1).all()
    assert (limited.decode >= 1).all()
    long = prompt + output > limit
    assert (total[long] == limit).all()
    assert (limited.prefill[~long] == prompt[~long]).all()
    assert (limited.decode == np.minimum(output, limit - 1)).all()
    assert limited.num_cut == long.sum()


def test_the_prompt_gives_way_before_the_output() -> None:
    limited = limit_tokens(np.array([900, 50]), np.array([200, 5000]), 1000)
    assert limited.prefill.tolist() == [800, 1]
    assert limited.decode.tolist() == [200, 999]


def test_a_synthetic_stream_fits_its_limit() -> None:
    table = SyntheticStream(0, Purpose.WORKLOAD, 1.0, "poisson", 1.0, 0.5, 600).window(0, 4000)
    total = table.prefill_tokens + table.decode_tokens
    assert total.max() == 600
    assert (total < 600).any()
