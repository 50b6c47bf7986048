"""Vidur's config is built from ours as its own parser would, and leaves no trace."""

from __future__ import annotations

import os
import sys

import pytest
from vidur.config.utils import dataclass_to_dict

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur.build import simulation_config
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config

ON_VIDUR = {
    "simulation": {"engine": "vidur"},
    "parallel_training": {"num_envs": 1},
    "ppo_config": {"advantage": "gae"},
    "warmstart": {"method": "imitation"},
    "evaluation": {"enabled": False},
}
CONFIGS = {
    "default": {},
    "ttft": {"lookahead": {"ttft_weight": 17.5}},
    "vllm": {"cluster": {"replica_scheduler": "vllm", "max_tokens_in_batch": 2048}},
    "vllm_v1": {
        **ON_VIDUR,
        "cluster": {"replica_scheduler": "vllm_v1", "chunk_size": 2048, "prefix_caching": True},
    },
    "uncached": {**ON_VIDUR, "cluster": {"replica_scheduler": "vllm_v1", "prefix_caching": False}},
    "orca": {"cluster": {"replica_scheduler": "orca", "batch_size_cap": 32, "num_blocks": 900}},
    "mixed": {"cluster": {"devices": ("a100", "h100", "a40", "a100")}, "training": {"seed": 2**40}},
    "parallel": {
        **ON_VIDUR,
        "cluster": {"tensor_parallel_size": 2, "num_pipeline_stages": 2, "block_size": 32},
    },
    "trace": {"workload": {"source": "trace", "trace_file": "a b.csv", "rate_scale": 2.0}},
    "profiles": {
        **ON_VIDUR,
        "simulation": {
            "engine": "vidur", "predictor": "local_linear_regression", "profile_dir": "p/a100",
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("groups", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("scheduler", ["round_robin", "least_kv", "lookahead"])
def test_it_is_what_vidurs_parser_makes_of_the_flags(groups, scheduler, tmp_path, monkeypatch):
    config = TrainingConfig.model_validate(groups)
    flags = cli_flags(config, scheduler, metrics_dir=str(tmp_path))
    parsed = dataclass_to_dict(parse_simulation_config(flags))
    built = dataclass_to_dict(simulation_config(config, scheduler))
    del parsed["__flat_config__"]
    for tree in (parsed, built):
        for name in ("output_dir", "cache_dir"):
            tree["metrics_config"].pop(name, None)
        # Not written in either case; the flags leave Vidur's default.
        tree["metrics_config"].pop("write_json_trace")
    assert built == parsed


def test_building_makes_no_folder_and_reads_no_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program", "--no_flag_of_vidurs"])
    simulation_config(TrainingConfig(), "ppo_modular")
    assert os.listdir(tmp_path) == []


def test_a_model_that_does_not_fit_is_refused():
    config = TrainingConfig.model_validate({"cluster": {"model_name": "meta-llama/Llama-3-70B"}})
    with pytest.raises(UserError, match=r"raise cluster\.tensor_parallel_size"):
        simulation_config(config, "round_robin")
