"""How an episode ends, for whoever decided in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeEnd:
    """What the last decision of an episode earned until every request was served.

    reward: [B], one per environment; components: [B, K], see ``schema.COMPONENTS``.
    """

    reward: NDArray[np.float64]
    components: NDArray[np.float64]
