"""What a router sees and earns, made by hand: no simulator, every number given."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.control.curriculum import StageScales
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.routing.estimator import Estimates, Rate
from vidur_ext.vidur.observation import Witness

BLOCK_SIZE = 16


def estimates(replicas: int) -> Estimates:
    """Return replicas that decode in 0.01, 0.02, ... s, with full batches of 512 prompt tokens in
    0.1 s and 1e-5 s per token of context."""
    rates = np.zeros((replicas, len(Rate)))
    rates[:, Rate.SLOPE] = 1e-5
    rates[:, Rate.CHUNK_S] = 0.1
    base = np.tile(0.01 * np.arange(1.0, replicas + 1.0)[:, None], (1, 9))
    return Estimates(base, rates, 512.0, 100.0, 1.0)


@pytest.fixture
def make_witness():
    """Return a witness of R replicas, of the keys of ``observation`` and ``reward_config``."""

    def make(
        replicas: int, *, observation=None, reward=None, lookahead=None, scales=None
    ) -> Witness:
        return Witness(
            RouterConfig(
                observation=observation or {},
                reward_config=reward or {},
                lookahead=lookahead or {},
            ),
            BLOCK_SIZE,
            estimates(replicas),
            scales or StageScales(0),
        )

    return make
