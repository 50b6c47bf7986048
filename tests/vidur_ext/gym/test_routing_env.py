"""The Gymnasium environments are proper ones, and show the compiled engine as it is."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FlattenObservation, NormalizeObservation
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics

from ppo_scheduler.errors import UserError
from vidur_ext.gym import ROUTING

SMALL = ["training.episode_requests=12", "cluster.num_replicas=3", "workload.qps=40"]


def single(*overrides: str) -> gymnasium.Env:
    return gymnasium.make(ROUTING, overrides=[*SMALL, *overrides])


def vector(num_envs: int, *overrides: str) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec(ROUTING, num_envs=num_envs, overrides=[*SMALL, *overrides])


def in_turn(env: gymnasium.Env) -> list[tuple]:
    """Play one episode round robin; return all steps."""
    steps, ended = [], False
    while not ended:
        steps.append(env.step(len(steps) % 3))
        ended = steps[-1][2]
    return steps


def test_it_is_a_gymnasium_environment():
    check_env(single().unwrapped, skip_render_check=True)


def test_the_vector_form_says_what_gymnasium_asks_for():
    envs = vector(4)
    assert envs.num_envs == 4
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    seen, info = envs.reset(seed=5)
    assert seen in envs.observation_space
    assert info == {}
    seen, reward, ended, cut, _ = envs.step(envs.action_space.sample())
    assert seen in envs.observation_space
    assert (reward.shape, ended.shape, cut.shape) == ((4,), (4,), (4,))
    assert envs.single_action_space == gymnasium.spaces.Discrete(3)


def test_each_row_of_the_vector_form_is_a_single_environment():
    """Environment b of the vector plays the b-th episode of the stream."""
    envs = vector(3)
    together = [envs.reset(seed=9)[0]]
    rewards, infos = [], []
    for step in range(12):
        seen, reward, ended, _, info = envs.step(np.full(3, step % 3))
        together.append(seen)
        rewards.append(reward)
        infos.append(info)
    assert ended.all()

    env = single()
    seed = 9
    for row in range(3):
        seen, _ = env.reset(seed=seed)
        seed = None
        for name, array in seen.items():
            assert np.array_equal(array, together[0][name][row])
        for number, (seen, reward, ended, _, info) in enumerate(in_turn(env)):
            assert reward == rewards[number][row]
            assert info["latency"] == infos[number]["latency"][row]
            expected = (
                infos[-1]["final_obs"][row]
                if ended
                else {name: array[row] for name, array in together[number + 1].items()}
            )
            for name, array in seen.items():
                assert np.array_equal(array, expected[name])
        assert info["mean_latency_s"] == infos[-1]["final_info"]["mean_latency_s"][row]


def test_the_step_that_ends_the_episodes_opens_the_next_ones():
    envs, other = vector(2), vector(2)
    envs.reset(seed=1)
    for step in range(12):
        seen, _, ended, _, info = envs.step(np.full(2, step % 3))
    assert ended.all()
    assert info["_final_obs"].all()
    assert not info["final_obs"][0]["replicas"].any()
    other.reset(seed=1)
    expected, _ = other.reset()
    for name, array in expected.items():
        assert np.array_equal(seen[name], array)


def test_rewards_add_up_to_minus_all_latencies():
    env = single("reward_config.mode=latency")
    env.reset(seed=3)
    steps = in_turn(env)
    total = sum(reward for _, reward, *_ in steps)
    assert total == pytest.approx(-12 * steps[-1][4]["mean_latency_s"], rel=1e-9)
    assert 0 < steps[-1][4]["mean_ttft_s"] < steps[-1][4]["mean_latency_s"]


def test_the_module_in_the_name_registers_it():
    env = gymnasium.make(f"vidur_ext.gym:{ROUTING}", overrides=SMALL)
    assert env.action_space.n == 3
    envs = gymnasium.make_vec(f"vidur_ext.gym:{ROUTING}", num_envs=2, overrides=SMALL)
    assert envs.num_envs == 2


def test_a_single_environment_can_be_flattened_and_normalised():
    raw = single("training.episode_requests=300")
    seen, _ = raw.reset(seed=4)
    assert max(step[0]["replicas"].max() for step in in_turn(raw)) > 1000
    env = NormalizeObservation(FlattenObservation(single("training.episode_requests=300")))
    env.reset(seed=4)
    rows = np.array([env.step(step % 3)[0] for step in range(299)])
    assert rows.shape == (299, seen["replicas"].size + seen["context"].size)
    # Samuelson's inequality: among n numbers none is further than sqrt(n - 1) deviations away.
    assert np.abs(rows).max() <= np.sqrt(299)


def test_statistics_and_reward_wrappers_take_the_vector_form():
    envs = RecordEpisodeStatistics(NormalizeReward(vector(2)))
    envs.reset(seed=4)
    for step in range(12):
        *_, info = envs.step(np.full(2, step % 3))
    assert info["episode"]["l"].tolist() == [12, 12]


def test_a_seed_chooses_the_request_stream():
    env = single()

    def first(seed: int | None) -> list[float]:
        env.reset(seed=seed)
        return [reward for _, reward, *_ in in_turn(env)]

    one, two, other = first(1), first(None), first(2)
    assert first(1) == one
    assert len({tuple(rewards) for rewards in (one, two, other)}) == 3
    fresh = single()
    fresh.reset()
    unseeded = [reward for _, reward, *_ in in_turn(fresh)]
    assert unseeded == first(0), "without a seed: training.seed"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda env: (env.reset(), env.step(3)), r"actions \[3\]: expected replicas 0 to 2"),
        (lambda env: (env.reset(), env.step(-1)), r"actions \[-1\]: expected replicas 0 to 2"),
        (lambda env: (env.reset(), env.step(1.7)), "actions of type float64: expected integers"),
        (lambda env: env.reset(options={"window": 3}), "there are no options"),
        (lambda env: env.step(0), "no episode is open: call reset"),
        (lambda env: (env.reset(), in_turn(env), env.step(0)), "no episode is open: call reset"),
    ],
)
def test_a_wrong_use_is_named(act, message):
    with pytest.raises(UserError, match=message):
        act(single().unwrapped)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda envs: envs.step(np.zeros(2, int)), "no episode is open"),
        (
            lambda envs: (envs.reset(), envs.step(np.zeros(3, int))),
            r"one action per environment \[",
        ),
        (lambda envs: (envs.reset(), envs.step(np.zeros(2))), "expected integers, the replicas"),
        (lambda envs: envs.reset(options={"window": 3}), "there are no options"),
        (lambda envs: envs.reset(seed=[1, 2]), "give one seed, not a list"),
        (lambda envs: vector(0), "num_envs=0: expected 1 or more"),
    ],
)
def test_a_wrong_use_of_the_vector_form_is_named(act, message):
    with pytest.raises(UserError, match=message):
        act(vector(2).unwrapped)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overrides": ["cluster.num_replica=3"]}, "did you mean cluster.num_replicas"),
        (
            {
                "overrides": [
                    "simulation.engine=vidur",
                    "parallel_training.num_envs=1",
                    "ppo_config.advantage=gae",
                    "warmstart.method=imitation",
                ]
            },
            'the Gymnasium environments need simulation.engine="compiled"',
        ),
        ({"config": "nowhere.json"}, "nowhere.json"),
        ({"config": {"cluster": {"num_replicas": 3}}}, "config is a dict: give a TrainingConfig"),
        ({"overrides": "cluster.num_replicas=3"}, "give a list of texts"),
        ({"overrides": {"cluster.num_replicas": 3}}, "expected GROUP.KEY=VALUE"),
        ({"overrides": [3]}, "give a list of texts"),
        ({"overrides": ["cluster.num_blocks=100"]}, "take 512 KV blocks of 16"),
    ],
)
def test_a_wrong_config_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        gymnasium.make(ROUTING, **arguments)


def test_a_config_is_taken_as_object_or_file(make_config, tmp_path):
    config = make_config(cluster={"num_replicas": 5})
    assert gymnasium.make(ROUTING, config=config).action_space.n == 5
    path = tmp_path / "config.json"
    path.write_text('{"cluster": {"num_replicas": 7}}', encoding="utf-8")
    assert gymnasium.make(ROUTING, config=path).action_space.n == 7
    with pytest.raises(UserError, match="not a TrainingConfig"):
        gymnasium.make(ROUTING, config=config, overrides=["cluster.num_replicas=6"])
