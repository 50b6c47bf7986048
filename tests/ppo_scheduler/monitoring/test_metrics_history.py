"""The history gives back every scalar that was recorded, also to another set of columns."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.monitoring.scalars import MetricsHistory
from ppo_scheduler.state_file import dump, load

COLUMNS = ("a", "b", "c")
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**62),
        st.dictionaries(st.sampled_from(COLUMNS), st.floats(allow_nan=False)),
    ),
    max_size=150,
)


def recorded(rows, columns=COLUMNS) -> MetricsHistory:
    history = MetricsHistory(columns)
    for step, scalars in rows:
        history.append(step, scalars)
    return history


@given(ROWS)
def test_rows_come_back_through_a_checkpoint(rows):
    state = load(dump(recorded(rows).state_dict()))
    restored = MetricsHistory(COLUMNS)
    restored.load_state_dict(state)
    assert list(restored.rows()) == rows
    assert len(restored) == len(rows)


def test_columns_that_are_gone_are_kept_and_new_ones_begin_empty():
    state = recorded([(1, {"a": 1.0, "b": 2.0})]).state_dict()
    other = MetricsHistory(("b", "d"))
    other.load_state_dict(state)
    other.append(2, {"d": 4.0})
    assert list(other.rows()) == [(1, {"b": 2.0, "a": 1.0}), (2, {"d": 4.0})]


def test_nan_is_a_scalar_that_is_missing():
    assert list(recorded([(1, {"a": math.nan, "b": 1.0})]).rows()) == [(1, {"b": 1.0})]
