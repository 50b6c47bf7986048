"""``python -m vidur_ext.main``: Vidur's own main and flags, with our types."""

from __future__ import annotations

import json
import subprocess

import pytest

VIDUR_FLAGS = [
    "--cluster_config_num_replicas", "2",
    "--replica_config_device", "a100",
    "--replica_config_network_device", "a100_dgx",
    "--replica_config_tensor_parallel_size", "1",
    "--replica_config_num_pipeline_stages", "1",
    "--replica_scheduler_config_type", "sarathi",
    "--execution_time_predictor_config_type", "analytic",
    "--request_generator_config_type", "synthetic",
    "--synthetic_request_generator_config_num_requests", "120",
    "--length_generator_config_type", "uniform",
    "--uniform_request_length_generator_config_max_tokens", "1024",
    "--uniform_request_length_generator_config_min_tokens", "128",
    "--interval_generator_config_type", "poisson",
    "--metrics_config_output_dir", "vidur",
]  # fmt: skip
NO_PLOTS = ["--no-metrics_config_write_metrics", "--no-metrics_config_enable_chrome_trace"]
PPO = "--p_p_o_global_scheduler_modular_config_"


@pytest.fixture
def main(warm_python, tmp_path):
    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        return warm_python.run(["-m", "vidur_ext.main", *flags], cwd=tmp_path)

    return run


def test_help_lists_vidurs_flags_and_ours(main, tmp_path):
    result = main("--help")
    assert result.returncode == 0
    for flag in (
        "--cluster_config_num_replicas",
        f"{PPO}ppo_config_clip_ratio",
        f"{PPO}load_checkpoint",
        "--workload_request_generator_config_qps",
    ):
        assert flag in result.stdout


def test_any_scheduler_runs_on_vidurs_own_requests(main, tmp_path):
    for scheduler in ("round_robin", "least_tokens"):
        result = main(*VIDUR_FLAGS, *NO_PLOTS, "--global_scheduler_config_type", scheduler)
        assert result.returncode == 0, result.stderr
        assert "Simulation ended" in result.stdout


def test_ppo_trains_on_vidurs_own_requests_and_resumes(main, tmp_path):
    flags = [
        *VIDUR_FLAGS,
        *NO_PLOTS,
        "--global_scheduler_config_type", "ppo_modular",
        f"{PPO}ppo_config_rollout_len", "32",
        f"{PPO}ppo_config_minibatch_size", "8",
        f"{PPO}ppo_config_counterfactual_share", "0.25",
        f"{PPO}statistics_stabilization_collect_steps", "16",
        f"{PPO}checkpointing_validation_freq", "null",
        f"{PPO}run_dir", "run",
    ]  # fmt: skip
    result = main(*flags)
    assert result.returncode == 0, result.stderr
    checkpoints = tmp_path / "outputs" / "checkpoints"
    manifest = (checkpoints / "latest.pt").resolve().with_suffix(".json")
    assert json.loads(manifest.read_text(encoding="utf-8"))["global_step"] == 120
    assert (tmp_path / "run" / "policy.pt").exists()

    latest = str(checkpoints / "latest.pt")
    longer = ["--synthetic_request_generator_config_num_requests", "150"]
    result = main(*flags, *longer, f"{PPO}load_checkpoint", latest)
    assert result.returncode == 0, result.stderr
    manifest = (checkpoints / "latest.pt").resolve().with_suffix(".json")
    assert json.loads(manifest.read_text(encoding="utf-8"))["global_step"] == 150


def test_a_bad_checkpoint_ends_in_one_message(main, tmp_path):
    result = main(
        *VIDUR_FLAGS, *NO_PLOTS,
        "--global_scheduler_config_type", "ppo_modular", f"{PPO}load_checkpoint", "none.pt",
        f"{PPO}checkpointing_validation_freq", "null",
    )  # fmt: skip
    assert result.returncode == 2
    assert "none.pt" in result.stderr
    assert "Traceback" not in result.stderr
