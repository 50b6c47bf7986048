"""Stable-Baselines3's PPO on our vector environment: ``stable_baselines.py [DECISIONS [SIZES]]``.

SIZES are "ours", minibatch and epochs of the default training, or "its", Stable-Baselines3's own
(64, 10). Environments and rollout are those of the default training; the network is
Stable-Baselines3's default, 64-64 for policy and value each, on the flattened observation.
``benchmarks/training.py`` runs it in a process of its own and reads the JSON line at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.gym import ROUTING
from vidur_ext.gym.episodes import GymObservation

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv
except ImportError:
    print("error: needs Stable-Baselines3: pip install stable-baselines3", file=sys.stderr)
    sys.exit(2)

Numbers = NDArray[np.float32]


class FlatEnvironments(VecEnv):
    """Our vector environment behind Stable-Baselines3's interface, as one row of numbers each.

    Its features are standardised by their first observation, for a network that expects numbers
    around 1; a running standardisation would cost Stable-Baselines3 time that is not its own.
    """

    def __init__(self, envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        self._envs = envs
        self._actions: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        first = _flat(envs.reset()[0])
        self._mean, self._scale = first.mean(axis=0), first.std(axis=0) + 1.0
        super().__init__(
            envs.num_envs,
            spaces.Box(-np.inf, np.inf, first.shape[1:]),
            envs.single_action_space,
        )

    def reset(self) -> Numbers:
        return self._standardised(self._envs.reset()[0])

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Numbers, Numbers, NDArray[np.bool_], list[dict[str, Any]]]:
        seen, reward, ended, _, info = self._envs.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ended.any():
            for env, last in enumerate(info["final_obs"]):
                alone = {name: array[None] for name, array in last.items()}
                infos[env]["terminal_observation"] = self._standardised(alone)[0]
        return self._standardised(seen), reward.astype(np.float32), ended, infos

    def close(self) -> None:
        self._envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self._envs, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def _standardised(self, seen: GymObservation) -> Numbers:
        return (_flat(seen) - self._mean) / self._scale


class _Clock(BaseCallback):
    """Notes when each rollout begins, so that the first one, which warms up, can be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[tuple[float, int]] = []

    def _on_rollout_start(self) -> None:
        self.began.append((time.perf_counter(), self.num_timesteps))

    def _on_step(self) -> bool:
        return True


def _flat(seen: GymObservation) -> Numbers:
    replicas = seen["replicas"]
    return np.concatenate([replicas.reshape(len(replicas), -1), seen["context"]], axis=1)


def main() -> None:
    """Train, and print decisions per second."""
    parser = argparse.ArgumentParser(description="Stable-Baselines3's PPO on our environment.")
    parser.add_argument("decisions", type=int, nargs="?", default=400_000)
    parser.add_argument("sizes", choices=("ours", "its"), nargs="?", default="ours")
    parser.add_argument("--quick", action="store_true", help="few decisions")
    options = parser.parse_args()
    decisions = 48_000 if options.quick else options.decisions
    config = TrainingConfig()
    torch.set_num_threads(config.training.torch_threads)
    section, count = config.ppo_config, config.parallel_training.num_envs
    ours = {"batch_size": section.minibatch_size, "n_epochs": section.epochs}
    envs = FlatEnvironments(gymnasium.make_vec(ROUTING, num_envs=count))
    model = PPO(
        "MlpPolicy",
        envs,
        learning_rate=section.learning_rate,
        n_steps=section.rollout_len // count,
        gamma=math.exp(-1.0 / (config.workload.qps * config.reward_config.horizon_s)),
        gae_lambda=section.gae_lambda,
        clip_range=section.clip_ratio,
        max_grad_norm=section.max_grad_norm,
        seed=config.training.seed,
        device="cpu",
        **(ours if options.sizes == "ours" else {}),
    )
    clock = _Clock()
    model.learn(decisions, callback=clock)
    ended, total = time.perf_counter(), model.num_timesteps
    began, first = clock.began[1]
    print(json.dumps({"decisions_per_second": (total - first) / (ended - began)}))


if __name__ == "__main__":
    main()
