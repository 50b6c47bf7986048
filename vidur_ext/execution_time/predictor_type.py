"""Type keys of the execution-time predictors that the plug-in adds to Vidur's registry."""

from __future__ import annotations

from vidur.types import BaseIntEnum


class PredictorType(BaseIntEnum):
    """Values start far above Vidur's own, with which they share a registry."""

    ANALYTIC = 100
    LOCAL_RANDOM_FORREST = 101
    LOCAL_LINEAR_REGRESSION = 102
