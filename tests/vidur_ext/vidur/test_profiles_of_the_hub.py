"""A predictor whose profiles lie in Vidur's hub needs a network, and says so."""

from __future__ import annotations

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.vidur.cluster import build_predictor, replica_kinds
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config

GROUPS = {
    "simulation": {"engine": "vidur"},
    "parallel_training": {"num_envs": 1},
    "ppo_config": {"advantage": "gae"},
    "warmstart": {"enabled": False},
    "evaluation": {"enabled": False},
}


@pytest.mark.parametrize("predictor", ["random_forrest", "linear_regression"])
def test_without_a_network_the_ways_out_are_named(make_config, tmp_path, monkeypatch, predictor):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.chdir(tmp_path)  # Vidur keeps what it has learned in the working folder
    groups = {**GROUPS, "simulation": {"engine": "vidur", "predictor": predictor}}
    flags = cli_flags(make_config(**groups), "random", metrics_dir=str(tmp_path))
    config = parse_simulation_config(flags)
    [kind], _ = replica_kinds(config.cluster_config)
    with pytest.raises(
        UserError, match=rf'"{predictor}" needs profiles.*use "analytic", or a "loc'
    ):
        build_predictor(config, kind)
