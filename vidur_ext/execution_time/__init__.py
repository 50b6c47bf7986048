"""Execution-time predictors: our roofline, and Vidur's own trained from a local folder."""

from __future__ import annotations

from vidur.execution_time_predictor import ExecutionTimePredictorRegistry
from vidur.types import ExecutionTimePredictorType

from vidur_ext.execution_time.analytic_predictor import AnalyticExecutionTimePredictor
from vidur_ext.execution_time.local_profile_predictor import (
    CompleteLinearRegressionExecutionTimePredictor,
    LocalLinearRegressionExecutionTimePredictor,
    LocalRandomForrestExecutionTimePredictor,
)
from vidur_ext.execution_time.predictor_type import PredictorType


def register() -> None:
    """Make our predictors selectable in Vidur. Idempotent."""
    registry = ExecutionTimePredictorRegistry
    registry.register(PredictorType.ANALYTIC, AnalyticExecutionTimePredictor)
    registry.register(PredictorType.LOCAL_RANDOM_FORREST, LocalRandomForrestExecutionTimePredictor)
    registry.register(
        PredictorType.LOCAL_LINEAR_REGRESSION, LocalLinearRegressionExecutionTimePredictor
    )
    # Vidur 0.0.26 registers a class that lacks an abstract method and so cannot be constructed.
    registry.unregister(ExecutionTimePredictorType.LINEAR_REGRESSION)
    registry.register(
        ExecutionTimePredictorType.LINEAR_REGRESSION,
        CompleteLinearRegressionExecutionTimePredictor,
    )
