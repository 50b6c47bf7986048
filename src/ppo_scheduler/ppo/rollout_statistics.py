"""What a rollout looked like, under its logged names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.ppo.gae import explained_variance
from ppo_scheduler.ppo.rollout_buffer import RolloutBuffer


def rollout_scalars(
    rollout: RolloutBuffer,
    advantage: NDArray[np.float64],
    target: NDArray[np.float64],
    schema: ObservationSchema,
    num_replicas: int,
) -> dict[str, float]:
    """Return Rollout/*, Actions/*, Reward/* and the explained variance of one full rollout.

    Rewards are those of the environment, before scaling; values, returns and advantages are in
    scaled units, before any normalisation of advantages.
    """
    reward = rollout.raw_reward
    shares = np.bincount(rollout.action.ravel(), minlength=num_replicas) / rollout.action.size
    first = len(schema.telemetry) - len(schema.reward_components)
    components = rollout.telemetry[..., first:].reshape(-1, len(schema.reward_components))
    return {
        "Training/ExplainedVariance": explained_variance(rollout.value, target),
        "Rollout/RewardMean": float(reward.mean()),
        "Rollout/RewardStd": float(reward.std()),
        "Rollout/RewardMin": float(reward.min()),
        "Rollout/RewardMax": float(reward.max()),
        "Rollout/ValueMean": float(rollout.value.mean()),
        "Rollout/ReturnMean": float(target.mean()),
        "Rollout/AdvantageStd": float(advantage.std()),
        **{f"Actions/Replica_{i}": float(share) for i, share in enumerate(shares)},
        **{
            f"Reward/{name}": float(mean)
            for name, mean in zip(schema.reward_components, components.mean(axis=0), strict=True)
        },
    }
