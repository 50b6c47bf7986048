"""Keys that contradict each other are errors that say how to agree."""

from __future__ import annotations

import pytest

from vidur_ext.config.loading import load_config

STAGES = [{"until_requests": 9}, {"until_requests": 9}]
ADAPTIVE = {"adaptive_minibatch": True, "min_minibatch_size": 32, "max_minibatch_size": 64}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            {"actor_critic_architecture": {"hidden_size": 30}},
            "actor_critic_architecture: attention_heads=4 must divide hidden_size=30",
        ),
        (
            {"ppo_config": {"minibatch_size": 17, "rollout_len": 64}},
            "ppo_config: minibatch_size=17 is larger than rollout_len=64 x "
            "counterfactual_share=0.125: one rollout holds no full minibatch",
        ),
        (
            {"ppo_config": {"minibatch_size": 65, "rollout_len": 64, "advantage": "gae"}},
            "ppo_config: minibatch_size=65 is larger than rollout_len=64: one rollout holds",
        ),
        (
            {"temperature_control": {"min_temperature": 1.2}},
            "temperature_control: min_temperature <= base_temperature <= max_temperature must",
        ),
        (
            {"curriculum_learning": {"stages": STAGES}},
            "curriculum_learning: until_requests must ascend from stage to stage, not [9, 9]",
        ),
        (
            {"curriculum_learning": {"enabled": True}},
            "curriculum_learning: enabled=true needs at least one stage",
        ),
        (
            {"advanced_optimization": {"min_minibatch_size": 9, "max_minibatch_size": 8}},
            "advanced_optimization: min_minibatch_size=9 is above max_minibatch_size=8",
        ),
        (
            {"advanced_optimization": ADAPTIVE, "ppo_config": {"minibatch_size": 16}},
            "ppo_config.minibatch_size=16 is outside the bounds of the adaptive minibatch, "
            "advanced_optimization.min_minibatch_size=32 and max_minibatch_size=64",
        ),
        (
            {"cluster": {"device": "h100"}},
            "cluster: network_device='a100_dgx' holds no device='h100'; choose "
            "h100_pairwise_nvlink or h100_dgx",
        ),
        (
            {"cluster": {"tensor_parallel_size": 3}},
            "cluster: tensor_parallel_size=3 must divide the 32 query heads of meta-llama/",
        ),
        (
            {"cluster": {"num_pipeline_stages": 5}},
            "cluster: num_pipeline_stages=5 must divide the 32 layers of meta-llama/Llama-3-8B",
        ),
        (
            {"observation": {"signal_delay_s": 0.1}},
            "evaluation.schedulers contains lookahead and clairvoyant, which plan from the cluster "
            "as it is; with observation.signal_delay_s=0.1 no scheduler may see it: remove them",
        ),
        (
            {
                "observation": {"prefix_knowledge": "exact", "kv_event_delay_s": 0.1},
                "cluster": {"replica_scheduler": "vllm_v1"},
            },
            "evaluation.schedulers contains lookahead and clairvoyant, which plan from the cluster "
            "as it is; with observation.kv_event_delay_s=0.1 no scheduler may see it: remove them",
        ),
        (
            {"evaluation": {"schedulers": ["random", "llm_d", "preble"], "baseline": "random"}},
            "evaluation.schedulers contains llm_d and preble, which go by what of a prompt is "
            'found where, and observation.prefix_knowledge="none" tells nobody: set it to "exact" '
            'or "approximate", or remove them from evaluation.schedulers',
        ),
        (
            {"warmstart": {"method": "imitation", "teachers": ["sticky_uncached"]}},
            "warmstart.teachers contains sticky_uncached, which go by what of a prompt is found",
        ),
        (
            {"observation": {"prefix_knowledge": "approximate"}},
            'observation.prefix_knowledge="approximate" knows of prefix caches, which replicas '
            'have with cluster.replica_scheduler "vllm_v1" and cluster.prefix_caching: set these',
        ),
        (
            {
                "observation": {"prefix_knowledge": "exact"},
                "cluster": {"replica_scheduler": "vllm_v1", "prefix_caching": False},
            },
            'observation.prefix_knowledge="exact" knows of prefix caches, which replicas have',
        ),
        (
            {"observation": {"prefix_knowledge": "approximate", "kv_event_delay_s": 0.1}},
            "observation: kv_event_delay_s=0.1 delays what replicas report, and prefix_knowledge="
            '"approximate" knows of none: set it to 0, or prefix_knowledge to "exact"',
        ),
        (
            {"simulation": {"predictor": "local_linear_regression"}},
            "simulation: predictor='local_linear_regression' needs profile_dir",
        ),
        (
            {"simulation": {"profile_dir": "profiles"}},
            "simulation: profile_dir has no effect with predictor='analytic'",
        ),
        (
            {"simulation": {"engine": "vidur"}},
            'simulation.engine="vidur" runs one environment, not parallel_training.num_envs=100: '
            'set num_envs to 1, or the engine to "compiled"',
        ),
        (
            {"cluster": {"num_pipeline_stages": 4}},
            'simulation.engine="compiled" simulates cluster.num_pipeline_stages=1 only, not 4: '
            'change it, or set simulation.engine to "vidur", parallel_training.num_envs to 1, '
            'ppo_config.advantage to "gae" and warmstart.method to "imitation"',
        ),
        (
            {"simulation": {"predictor": "linear_regression"}},
            "simulation.engine=\"compiled\" simulates simulation.predictor='analytic' only, not "
            "'linear_regression'",
        ),
        (
            {
                "cluster": {"num_pipeline_stages": 4},
                "simulation": {"engine": "vidur"},
                "parallel_training": {"num_envs": 1},
            },
            "evaluation.schedulers contains lookahead and clairvoyant, which plan with the "
            "compiled engine; it simulates cluster.num_pipeline_stages=1 only, not 4: remove them "
            "from evaluation.schedulers",
        ),
        (
            {
                "ppo_config": {"rollout_len": 300, "minibatch_size": 2},
                "training": {"total_requests": 300},
            },
            "ppo_config.rollout_len=300 is 3 decisions in each of parallel_training.num_envs=100 "
            "environments, of which ppo_config.counterfactual_share=0.125 prices none: raise "
            "rollout_len or the share",
        ),
        (
            {"parallel_training": {"num_processes": 3}},
            "3 processes cannot share 8 shards evenly (parallel_training.num_shards, at most one "
            "for each of num_envs): choose parallel_training.num_processes 1, 2, 4, 8",
        ),
        (
            {"parallel_training": {"num_processes": 2, "num_envs": 5}},
            "2 processes cannot share 5 shards evenly (parallel_training.num_shards, at most one "
            "for each of num_envs): choose parallel_training.num_processes 1, 5",
        ),
        (
            {"parallel_training": {"num_processes": 2}, "training": {"kernel": "torch"}},
            "several processes need the compiled network, whose results do not depend on how many "
            'decisions it takes at once: set training.kernel to "fused" and '
            "actor_critic_architecture.attention_layers to 0, or parallel_training.num_processes "
            "to 1",
        ),
        (
            {
                "parallel_training": {"num_processes": 2},
                "actor_critic_architecture": {"attention_layers": 1},
            },
            "several processes need the compiled network",
        ),
        (
            {"simulation": {"engine": "vidur"}, "parallel_training": {"num_envs": 1}},
            'ppo_config.advantage="counterfactual" prices every choice, which '
            'simulation.engine="vidur" cannot: set it to "gae", or the engine to "compiled"',
        ),
        (
            {
                "simulation": {"engine": "vidur"},
                "parallel_training": {"num_envs": 1},
                "ppo_config": {"advantage": "gae"},
            },
            'warmstart.method="costs" prices every choice, which simulation.engine="vidur" '
            'cannot: set it to "imitation", or the engine to "compiled"',
        ),
        (
            {"ppo_config": {"rollout_len": 1020, "minibatch_size": 100}},
            "ppo_config.rollout_len=1020 is no multiple of parallel_training.num_envs=100: choose "
            "1000 or 1100",
        ),
        (
            {"training": {"total_requests": 63}},
            "training.total_requests=63 (--total-requests) is no multiple of "
            "parallel_training.num_envs=100: choose 100, or another num_envs",
        ),
        ({"workload": {"source": "trace"}}, "workload: source='trace' needs trace_file"),
        (
            {"workload": {"trace_file": "trace.csv"}},
            "workload: trace_file has no effect with source='synthetic'",
        ),
        (
            {"workload": {"rate_profile": [1.0, 0.0]}},
            "workload: rate_profile must be from 0.001 to 1000 all over: [1.0, 0.0]",
        ),
        (
            {"workload": {"rate_profile": [1.0, 2.0], "rate_period": 1}},
            "workload: rate_profile has 2 factors for rate_period=1 requests; raise rate_period",
        ),
        (
            {"warmstart": {"load_levels": [1.0, 0.0]}},
            "warmstart: load_levels must all be from 0.01 to 100: [1.0, 0.0]",
        ),
        (
            {"warmstart": {"teachers": ["least_kv", "least_kv"]}},
            "warmstart: teachers names one heuristic twice",
        ),
        (
            {"warmstart": {"method": "imitation", "teachers": ["oracle_work"]}},
            "warmstart.teachers contains oracle_work, whose choice follows from true output "
            'lengths, but observation.output_length is "hidden"',
        ),
        (
            {"evaluation": {"schedulers": ["random"]}},
            "evaluation: baseline='least_outstanding' must be one of schedulers",
        ),
        (
            {"evaluation": {"schedulers": ["random", "random"], "baseline": "random"}},
            "evaluation: schedulers names one heuristic twice",
        ),
        (
            {"evaluation": {"num_seeds": 3, "vidur_workloads": 4}},
            "evaluation: vidur_workloads=4 of num_seeds=3 held-out workloads cannot be repeated",
        ),
    ],
)
def test_a_contradiction_is_named_with_the_keys_of_both_sides(complaint, tree, expected) -> None:
    assert complaint(tree).startswith(f"my.json: {expected}")


@pytest.mark.parametrize(
    "tree",
    [
        {"advanced_optimization": ADAPTIVE, "ppo_config": {"minibatch_size": 32}},
        {"advanced_optimization": {**ADAPTIVE, "adaptive_minibatch": False}},
        {"cluster": {"device": "h100", "network_device": "h100_dgx", "tensor_parallel_size": 8}},
        {
            "warmstart": {"method": "imitation", "teachers": ["oracle_work"]},
            "observation": {"output_length": "oracle"},
        },
        {"warmstart": {"enabled": False, "method": "imitation", "teachers": ["oracle_work"]}},
        {"warmstart": {"method": "costs", "teachers": ["oracle_work"]}},
        {"ppo_config": {"minibatch_size": 16_000, "advantage": "gae"}},
        {"ppo_config": {"minibatch_size": 16_000, "counterfactual_share": 1.0}},
        {
            "simulation": {"engine": "vidur"},
            "parallel_training": {"num_envs": 1},
            "ppo_config": {"advantage": "gae"},
            "warmstart": {"enabled": False},
        },
        {"workload": {"source": "trace", "trace_file": "trace.csv"}},
        {
            "simulation": {
                "predictor": "local_linear_regression",
                "profile_dir": "profiles",
                "engine": "vidur",
            },
            "parallel_training": {"num_envs": 1},
            "evaluation": {"schedulers": ["least_kv"], "baseline": "least_kv"},
            "ppo_config": {"advantage": "gae"},
            "warmstart": {"method": "imitation"},
        },
        {"training": {"total_requests": 90}, "parallel_training": {"num_envs": 2}},
        {"parallel_training": {"num_processes": 8}},
        {"parallel_training": {"num_processes": 5, "num_shards": 10}},
        {"training": {"kernel": "torch"}, "actor_critic_architecture": {"attention_layers": 1}},
    ],
)
def test_what_does_not_contradict_is_accepted(write, tree) -> None:
    load_config(write(tree))


def test_a_contradiction_between_file_and_command_line_names_both(complaint) -> None:
    message = complaint({"ppo_config": {"rollout_len": 64}}, "ppo_config.minibatch_size=100")
    assert message.startswith("my.json and command line: ppo_config: minibatch_size=100")
