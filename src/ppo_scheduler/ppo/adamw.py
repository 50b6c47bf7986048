"""AdamW's moments as three entries instead of three per parameter.

A checkpoint is written every few decisions: each tensor in it costs as much as a thousand numbers.
"""

from __future__ import annotations

import torch

from ppo_scheduler.state import StateDict

_MOMENTS = ("exp_avg", "exp_avg_sq")


def adamw_state(optimizer: torch.optim.AdamW) -> StateDict:
    """Return ``steps`` (int) and the moments [N], flat in the order of the parameters.

    All parameters are updated together, so they share one count of steps.
    """
    states = [optimizer.state[parameter] for parameter in _parameters(optimizer)]
    if not all(states):
        assert not any(states), "either all parameters have been updated or none"
        return {"steps": 0, **dict.fromkeys(_MOMENTS)}
    moments = {name: torch.cat([state[name].flatten() for state in states]) for name in _MOMENTS}
    return {"steps": int(states[0]["step"]), **moments}


def load_adamw_state(optimizer: torch.optim.AdamW, state: StateDict) -> None:
    """Restore what ``adamw_state`` returned; learning rate and such stay as they are."""
    optimizer.state.clear()
    if state["steps"] == 0:
        return
    parameters = _parameters(optimizer)
    sizes = [parameter.numel() for parameter in parameters]
    split = [state[name].split(sizes) for name in _MOMENTS]
    for parameter, *moments in zip(parameters, *split, strict=True):
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state["steps"])),
            **{
                name: values.clone().view_as(parameter)
                for name, values in zip(_MOMENTS, moments, strict=True)
            },
        }


def _parameters(optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
