"""What the tests of the controls share."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch

from ppo_scheduler.state import StateDict


@pytest.fixture(scope="session")
def through_file() -> Callable[[StateDict], StateDict]:
    """Send a state through the bytes of a checkpoint, read back without unpickling."""

    def write_and_read(state: StateDict) -> StateDict:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        loaded: StateDict = torch.load(file, weights_only=True)
        return loaded

    return write_and_read
