"""The flags of ``ppo_modular`` describe a training, and none is taken without an effect."""

from __future__ import annotations

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.main import job_of
from vidur_ext.vidur.flags import cli_flags, is_training, parse_simulation_config

LEARNER = "--p_p_o_global_scheduler_modular_config_"
CONFIGS = {
    "small": {"training": {"seed": 7, "total_requests": 200}, "cluster": {"num_replicas": 2}},
    "vllm": {"cluster": {"replica_scheduler": "vllm", "max_tokens_in_batch": 2048}},
    "mixed": {"cluster": {"devices": ("a100", "h100", "h100", "a100")}},
    "vidur": {
        "simulation": {"engine": "vidur"}, "parallel_training": {"num_envs": 1},
        "cluster": {"num_pipeline_stages": 2}, "evaluation": {"enabled": False},
        "ppo_config": {"advantage": "gae"}, "warmstart": {"method": "imitation"},
    },
    "vllm_v1": {
        "cluster": {"replica_scheduler": "vllm_v1", "chunk_size": 2048, "prefix_caching": False},
    },
    "trace": {"workload": {"source": "trace", "trace_file": "a.csv", "trace_format": "azure"}},
}  # fmt: skip
VIDURS_REQUESTS = [
    "--request_generator_config_type", "synthetic",
    "--synthetic_request_generator_config_num_requests", "120",
    "--synthetic_request_generator_config_max_tokens", "4096",
]  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """Return the training that the flags of a config, and more flags after them, describe."""

    def build(groups, *more: str, **places):
        config = TrainingConfig.model_validate(groups)
        flags = cli_flags(config, "ppo_modular", metrics_dir=str(tmp_path / "vidur"), **places)
        flags = [*flags, *more]
        return job_of(parse_simulation_config(flags), flags)

    return build


@pytest.mark.parametrize("groups", CONFIGS.values(), ids=CONFIGS)
def test_a_config_comes_back_from_its_flags_without_the_warm_start_before_it(groups, job):
    began = {**groups, "warmstart": {"enabled": False}}
    assert job(groups).config == TrainingConfig.model_validate(began)


def test_places_come_back_from_their_flags(job):
    places = {"run_dir": "run", "load_checkpoint": "latest", "stop_at_requests": 100}
    one = job(CONFIGS["small"], **places, pretrained_actor="a.pt")
    assert {name: getattr(one, name) for name in places} == places
    assert str(one.pretrained_actor) == "a.pt"


def test_values_that_begin_with_a_dash_come_back_from_their_flags(job):
    groups = {
        "workload": {"source": "trace", "trace_file": "-t.csv", "trace_format": "azure"},
        "checkpointing": {"checkpoint_dir": "--ck"},
        "monitoring": {"wandb_project": "-p"},
    }
    one = job(groups, run_dir="-run", pretrained_actor="--a.pt")
    assert (one.run_dir, str(one.pretrained_actor)) == ("-run", "--a.pt")
    began = {**groups, "warmstart": {"enabled": False}}
    assert one.config == TrainingConfig.model_validate(began)


def test_vidurs_own_requests_are_the_budget(job):
    groups = {
        "parallel_training": {"num_envs": 1},
        "workload": {"max_tokens": 4096},
        "checkpointing": {"validation_freq": None},
    }
    one = job(groups, *VIDURS_REQUESTS)
    assert len(one.requests) == 120
    assert one.config.training.total_requests == 120
    assert one.config.workload.max_tokens == 4096


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--time_limit", "10"), "--time_limit 10: a training of ppo_modular has no key for that"),
        (("--metrics_config_write_metrics",), "write_metrics True: .* it would be False"),
        (("--seed", "9"), r"--seed 9: .* it would be 0\. Leave it out"),
        (("--replica_config_kv_parallel_size", "1", "--cache_config_num_preallocate_tokens", "9"),
         "--cache_config_num_preallocate_tokens 9"),
        (("--replica_scheduler_config_type", "mnemosyne_fcfs"),
         r"--replica_scheduler_config_type: cluster\.replica_scheduler = .mnemosyne_fcfs."),
        (("--cluster_config_num_replicas", "2000"), "--cluster_config_num_replicas: .* <= 1024"),
        (("--workload_request_generator_config_qps", "0"), "_qps: workload.qps = 0.0: must be"),
        ((f"{LEARNER}num_envs", "7"), "num_envs"),
        (("--replica_config_num_pipeline_stages", "2"), "cluster.num_pipeline_stages=1 only"),
        (("--replica_scheduler_config_type", "lightllm"), 'must be one of "sarathi", "vllm"'),
        (("--cache_config_enable_prefix_caching",), "--cache_config_enable_prefix_caching True: a"),
    ],
)  # fmt: skip
def test_flags_that_a_training_cannot_obey_are_refused(flags, named, job):
    with pytest.raises(UserError, match=named):
        job({}, *flags)


def test_vidurs_own_requests_have_no_validation_workloads(job):
    with pytest.raises(UserError, match=r"validation_freq needs workloads of its own"):
        job({"checkpointing": {"validation_freq": 1}}, *VIDURS_REQUESTS)


def test_other_schedulers_are_no_training(tmp_path):
    flags = cli_flags(TrainingConfig(), "lor", metrics_dir=str(tmp_path))
    assert not is_training(parse_simulation_config(flags))
