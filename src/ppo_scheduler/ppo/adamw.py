"""AdamW in two flat vectors (Loshchilov and Hutter 2019, algorithm 2).

torch's own keeps two tensors per parameter, and each of them costs a checkpoint as much as a
thousand numbers. To construct it imports torch's compiler, which takes longer than torch itself
and 70 MB: a second at the start of every training, and of every chunk of one.

A parameter without a gradient keeps still in both; here its moments decay and its steps are counted
meanwhile, in torch's they wait. It makes no difference to a policy: all of it is in every loss.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ppo_scheduler.state import StateDict

_BETA1, _BETA2 = 0.9, 0.999


class AdamW:
    """Moves parameters along their gradients; equals ``torch.optim.AdamW`` with its betas."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        """Take parameters of any shapes, N numbers in all. ``learning_rate`` may be set anew."""
        self.learning_rate = learning_rate
        self._parameters = list(parameters)
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._eps = eps
        self._weight_decay = weight_decay
        self._steps = 0
        self._mean = torch.zeros(sum(self._sizes))
        self._square = torch.zeros(sum(self._sizes))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters that have a gradient; the others stay."""
        gradient = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1)
                for p in self._parameters
            ]
        )
        self._steps += 1
        self._mean.lerp_(gradient, 1.0 - _BETA1)
        self._square.mul_(_BETA2).addcmul_(gradient, gradient, value=1.0 - _BETA2)
        root = self._square.sqrt().div_((1.0 - _BETA2**self._steps) ** 0.5).add_(self._eps)
        length = self.learning_rate / (1.0 - _BETA1**self._steps)
        moves = (self._mean / root).mul_(length).split(self._sizes)
        for parameter, move in zip(self._parameters, moves, strict=True):
            if parameter.grad is not None:
                parameter.mul_(1.0 - self.learning_rate * self._weight_decay)
                parameter.sub_(move.view_as(parameter))

    def state_dict(self) -> StateDict:
        """Return the moments [N], in the order of the parameters, and the steps made."""
        return {"steps": self._steps, "exp_avg": self._mean, "exp_avg_sq": self._square}

    def load_state_dict(self, state: StateDict) -> None:
        self._steps = state["steps"]
        self._mean.copy_(state["exp_avg"])
        self._square.copy_(state["exp_avg_sq"])
