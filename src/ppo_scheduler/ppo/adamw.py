"""AdamW's moments in two flat tensors.

Checkpoints are frequent, and each tensor in one costs as much as a thousand numbers: the network
has dozens of parameters, and each of them two moments.
"""

from __future__ import annotations

import torch

from ppo_scheduler.state import StateDict

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FlatMoments:
    """Lets an optimizer update its moments in place through views of ``exp_avg`` [N] and
    ``exp_avg_sq`` [N], in the order of the parameters."""

    def __init__(self, optimizer: torch.optim.AdamW) -> None:
        """Take the place of the state that a new optimizer would make at its first step."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        sizes = [parameter.numel() for parameter in parameters]
        self._flat = {name: torch.zeros(sum(sizes)) for name in _MOMENTS}
        self._steps = [torch.tensor(0.0) for _ in parameters]
        views = [self._flat[name].split(sizes) for name in _MOMENTS]
        for parameter, step, *moments in zip(parameters, self._steps, *views, strict=True):
            optimizer.state[parameter] = {
                "step": step,
                **{n: m.view_as(parameter) for n, m in zip(_MOMENTS, moments, strict=True)},
            }

    def state_dict(self) -> StateDict:
        """Return the moments and ``steps``, which all parameters share."""
        return {"steps": int(self._steps[0]), **self._flat}

    def load_state_dict(self, state: StateDict) -> None:
        for step in self._steps:
            step.fill_(state["steps"])
        for name in _MOMENTS:
            self._flat[name].copy_(state[name])
