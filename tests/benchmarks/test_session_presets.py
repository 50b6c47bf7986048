"""The presets are like the traffic that they are made after, to a tenth of every figure."""

from __future__ import annotations

import pytest
import sessions

from vidur_ext.config.sections import PRESETS


def test_every_preset_has_figures_to_reach() -> None:
    assert set(sessions.ASKED) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_figure_is_reached_within_a_tenth(preset: str) -> None:
    found = sessions.reached(preset, sessions.REQUESTS[preset])
    asked = sessions.ASKED[preset]
    assert found.keys() == asked.keys()
    errors = {name: found[name] / asked[name] - 1.0 for name in asked}
    assert {name: error for name, error in errors.items() if abs(error) > 0.1} == {}
