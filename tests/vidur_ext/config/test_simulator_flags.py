"""The flags that a config becomes, word for word."""

from __future__ import annotations

import pytest

from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config, training_config
from vidur_ext.vidur.learner_flags import SCHEDULER_FLAG_PREFIX, learner_values

SMALL = """{
    "training": {"seed": 7, "total_requests": 96},
    "monitoring": {"log_level": "warning"},
    "cluster": {"num_replicas": 2, "batch_size_cap": 16, "chunk_size": 256, "num_blocks": 900,
                "model_name": "meta-llama/Llama-2-7b-hf", "device": "h100",
                "network_device": "h100_dgx", "tensor_parallel_size": 2, "num_pipeline_stages": 4,
                "block_size": 32, "watermark_blocks_fraction": 0.02,
                "memory_margin_fraction": 0.2},
    "workload": {"qps": 6.5, "arrival": "poisson", "burstiness_cv": 1.0, "code_fraction": 0.5,
                 "max_tokens": 2048, "rate_scale": 2.0, "holdout_fraction": 0.25,
                 "rate_profile": [0.6, 1.1], "rate_period": 64, "output_tail_index": 1.5},
    "simulation": {"engine": "vidur"}, "parallel_training": {"num_envs": 1},
    "evaluation": {"enabled": false},
    "ppo_config": {"advantage": "gae"}, "warmstart": {"method": "imitation"}
}"""

GOLDEN = """
--cluster_config_num_replicas 2
--replica_config_model_name meta-llama/Llama-2-7b-hf
--replica_config_device h100
--replica_config_network_device h100_dgx
--replica_config_tensor_parallel_size 2
--replica_config_num_pipeline_stages 4
--cache_config_block_size 32
--cache_config_num_blocks 900
--cache_config_watermark_blocks_fraction 0.02
--cache_config_memory_margin_fraction 0.2
--replica_scheduler_config_type sarathi
--sarathi_scheduler_config_batch_size_cap 16
--sarathi_scheduler_config_chunk_size 256
--execution_time_predictor_config_type analytic
--analytic_execution_time_predictor_config_prediction_max_batch_size 16
--analytic_execution_time_predictor_config_prediction_max_tokens_per_request 2048
--analytic_execution_time_predictor_config_prediction_max_prefill_chunk_size 256
--request_generator_config_type stream
--workload_request_generator_config_source synthetic
--workload_request_generator_config_qps 6.5
--workload_request_generator_config_arrival poisson
--workload_request_generator_config_burstiness_cv 1.0
--workload_request_generator_config_rate_profile 0.6,1.1
--workload_request_generator_config_rate_period 64
--workload_request_generator_config_code_fraction 0.5
--workload_request_generator_config_output_tail_index 1.5
--workload_request_generator_config_length_scale 1.0
--workload_request_generator_config_max_tokens 2048
--workload_request_generator_config_trace_format auto
--workload_request_generator_config_trace_time_unit auto
--workload_request_generator_config_rate_scale 2.0
--workload_request_generator_config_holdout_fraction 0.25
--workload_request_generator_config_seed 7
--workload_request_generator_config_num_requests 96
--cluster_config_signal_delay_s 0.0
--cluster_config_prefix_knowledge none
--cluster_config_kv_event_delay_s 0.0
--cluster_config_prefix_index_blocks 31250
--global_scheduler_config_type least_kv
--seed 7
--log_level warning
--metrics_config_output_dir out
--no-metrics_config_write_metrics
--no-metrics_config_enable_chrome_trace
"""


def pairs(flags: list[str]) -> dict[str, str]:
    """Return flags by name; those without a value map to nothing."""
    named = (flag.removeprefix("--").partition("=") for flag in flags)
    return {name: value for name, _, value in named}


def flags_of(json_text: str, scheduler: str = "least_kv", **more: str) -> dict[str, str]:
    config = TrainingConfig.model_validate_json(json_text)
    return pairs(cli_flags(config, scheduler, metrics_dir="out", **more))


def test_the_flags_of_a_small_config_are_these() -> None:
    assert flags_of(SMALL) == pairs(GOLDEN.strip().replace(" ", "=").splitlines())


@pytest.mark.parametrize(
    ("scheduler", "key", "flag"),
    [
        ("sarathi", "chunk_size", "sarathi_scheduler_config_chunk_size"),
        ("vllm", "max_tokens_in_batch", "vllm_scheduler_config_max_tokens_in_batch"),
    ],
)
def test_a_replica_schedulers_token_limit_reaches_it_and_the_predictor(
    scheduler, key, flag
) -> None:
    text = f'{{"cluster": {{"replica_scheduler": "{scheduler}", "{key}": 640}}}}'
    flags = flags_of(text)
    predictor = "analytic_execution_time_predictor_config_prediction_max_prefill_chunk_size"
    assert flags[flag] == flags[predictor] == "640"


@pytest.mark.shows("simulation.predictor", "simulation.profile_dir")
def test_a_profile_folder_reaches_the_predictor_that_reads_it() -> None:
    flags = flags_of(
        '{"simulation": {"predictor": "local_random_forrest", "profile_dir": "profiles/a100",'
        ' "engine": "vidur"}, "parallel_training": {"num_envs": 1},'
        ' "evaluation": {"enabled": false},'
        ' "ppo_config": {"advantage": "gae"}, "warmstart": {"method": "imitation"}}'
    )
    assert flags["execution_time_predictor_config_type"] == "local_random_forrest"
    name = "local_random_forrest_execution_time_predictor_config_profile_dir"
    assert flags[name] == "profiles/a100"


def test_a_planner_gets_its_weight() -> None:
    text = '{"lookahead": {"ttft_weight": 17.5}}'
    assert flags_of(text, "lookahead")["lookahead_global_scheduler_config_ttft_weight"] == "17.5"
    flags = flags_of(text, "clairvoyant")
    assert flags["clairvoyant_global_scheduler_config_ttft_weight"] == "17.5"


def test_a_trace_reaches_the_workload() -> None:
    text = '{"workload": {"source": "trace", "trace_file": "a b.csv", "trace_format": "azure"}}'
    flags = flags_of(text)
    prefix = "workload_request_generator_config_"
    assert flags[f"{prefix}trace_file"] == "a b.csv"
    assert flags[f"{prefix}trace_format"] == "azure"


def test_only_the_learned_router_gets_the_learners_flags() -> None:
    assert not [name for name in flags_of(SMALL) if "p_p_o" in name]
    config = TrainingConfig.model_validate_json(SMALL)
    flags = flags_of(SMALL, "ppo_modular")
    learner = [name for name in flags if name.removeprefix("no-").startswith(SCHEDULER_FLAG_PREFIX)]
    assert len(learner) == len(learner_values(config)) + 6
    assert flags[f"{SCHEDULER_FLAG_PREFIX}routers"] == "{}"
    assert flags[f"{SCHEDULER_FLAG_PREFIX}engine"] == "vidur"
    assert flags[f"{SCHEDULER_FLAG_PREFIX}num_envs"] == "1"
    assert flags[f"{SCHEDULER_FLAG_PREFIX}num_shards"] == "8"
    assert flags[f"{SCHEDULER_FLAG_PREFIX}num_processes"] == "1"
    assert flags[f"{SCHEDULER_FLAG_PREFIX}max_restarts"] == "3"


def test_places_of_the_learned_router_are_flags_only_when_given() -> None:
    prefix = SCHEDULER_FLAG_PREFIX
    without = flags_of(SMALL, "ppo_modular")
    assert not {f"{prefix}run_dir", f"{prefix}load_checkpoint"} & without.keys()
    flags = flags_of(
        SMALL, "ppo_modular", run_dir="run", pretrained_actor="a.pt", load_checkpoint="latest"
    )
    assert flags[f"{prefix}run_dir"] == "run"
    assert flags[f"{prefix}pretrained_actor"] == "a.pt"
    assert flags[f"{prefix}load_checkpoint"] == "latest"


def test_seeds_beyond_32_bits_reach_the_workload_whole() -> None:
    flags = flags_of('{"training": {"seed": 4294967299}}')
    assert flags["seed"] == "3"
    assert flags["workload_request_generator_config_seed"] == "4294967299"


def test_what_heuristics_are_told_reaches_a_training(tmp_path) -> None:
    text = '{"routers": {"llm_d": {"kv_weight": 4}}, "evaluation": {"enabled": false}}'
    config = TrainingConfig.model_validate_json(text)
    flags = cli_flags(config, "ppo_modular", metrics_dir=str(tmp_path))
    built = training_config(parse_simulation_config(flags), flags, None)
    assert built.routers == config.routers
