"""Which numbers of environments a training can have."""

from __future__ import annotations


def misfit(engine: str, num_envs: int, rollout_len: int, total_requests: int) -> str | None:
    """Say why a training cannot run in ``num_envs`` environments, and what to do; None if it can.

    All environments step together, so rollouts and the budget are split evenly among them.
    """
    if engine == "vidur" and num_envs != 1:
        return (
            f'simulation.engine="vidur" runs one environment, not parallel_training.num_envs='
            f'{num_envs}: set num_envs to 1, or the engine to "compiled"'
        )
    if rollout_len % num_envs:
        return (
            f"ppo_config.rollout_len={rollout_len} is no multiple of "
            f"parallel_training.num_envs={num_envs}: choose {_multiples(rollout_len, num_envs)}"
        )
    if total_requests % num_envs:
        return (
            f"training.total_requests={total_requests} (--ppo-requests, --total-requests) is no "
            f"multiple of parallel_training.num_envs={num_envs}: choose "
            f"{_multiples(total_requests, num_envs)}, or another num_envs"
        )
    return None


def _multiples(value: int, step: int) -> str:
    """Name the multiples of ``step`` around ``value``."""
    below = value // step * step
    return f"{below} or {below + step}" if below else str(step)
