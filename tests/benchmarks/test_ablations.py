"""Rows of the ablations: each is a training that can be run, and another one than the shipped."""

from __future__ import annotations

import pytest
from ablations import ROWS, Cell


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("row", [row for row in ROWS if row != "as_shipped"])
def test_a_row_changes_what_it_says_and_nothing_else(row, quick):
    shipped = Cell("default", "as_shipped", 0, quick).config("/folder").settings()
    changed = Cell("default", row, 0, quick).config("/folder").settings()
    different = {key for key in shipped if shipped[key] != changed[key]}
    assert different == {override.partition("=")[0] for override in ROWS[row]}


def test_a_scenario_keeps_its_own_keys():
    cell = Cell("mixed_devices", "gae", 2, quick=False).config("/folder")
    assert cell.cluster.devices == ("h100", "h100", "a100", "a100")
    assert (cell.ppo_config.advantage, cell.training.seed) == ("gae", 2)
    assert "lookahead" not in cell.evaluation.schedulers
    assert "min_predicted_latency" in cell.evaluation.schedulers
