"""The optimizer is AdamW, without what torch's own brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from ppo_scheduler.ppo.adamw import AdamW


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.SiLU(), nn.Linear(7, 3))


def descend(module: nn.Module, step: int) -> None:
    """Leave the gradients of the step's batch."""
    batch = torch.randn(16, 5, generator=torch.Generator().manual_seed(step))
    (module(batch) - batch[:, :3].sin()).square().mean().backward()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_moves_as_torchs_adamw_does(weight_decay):
    ours, theirs = network(), network()
    settings = {"eps": 1e-5, "weight_decay": weight_decay}
    one = AdamW(ours.parameters(), learning_rate=0.01, **settings)
    other = torch.optim.AdamW(theirs.parameters(), lr=0.01, **settings)
    for step in range(50):
        one.learning_rate = other.param_groups[0]["lr"] = 0.01 / (step + 1)
        for module, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            descend(module, step)
            optimizer.step()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-7)


def test_it_continues_from_its_state_to_the_same_bits():
    straight, resumed = network(), network()
    optimizer = AdamW(straight.parameters(), learning_rate=0.01)
    for step in range(6):
        optimizer.zero_grad()
        descend(straight, step)
        optimizer.step()
        if step == 2:
            resumed.load_state_dict(straight.state_dict())
            second = AdamW(resumed.parameters(), learning_rate=0.01)
            second.load_state_dict(optimizer.state_dict())
    for step in range(3, 6):
        second.zero_grad()
        descend(resumed, step)
        second.step()
    assert all(map(torch.equal, straight.parameters(), resumed.parameters()))


def test_parameters_without_a_gradient_stay():
    module = network()
    before = module[0].weight.clone()
    optimizer = AdamW(module.parameters(), learning_rate=0.1, weight_decay=0.5)
    module[2](torch.ones(7)).sum().backward()
    optimizer.step()
    assert torch.equal(module[0].weight, before)
    assert module[2].weight.grad is not None


def test_a_training_does_not_wait_for_torchs_compiler():
    """torch's own optimizers import it, which takes a second."""
    program = (
        "import sys, torch\n"
        "from torch import nn\n"
        "from ppo_scheduler.ppo.adamw import AdamW\n"
        "module = nn.Linear(2, 1)\n"
        "optimizer = AdamW(module.parameters(), learning_rate=0.1)\n"
        "module(torch.ones(2)).backward()\n"
        "nn.utils.clip_grad_norm_(module.parameters(), 1.0)\n"
        "optimizer.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
