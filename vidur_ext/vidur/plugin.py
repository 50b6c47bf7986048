"""Registration of everything this plug-in adds to Vidur."""

from __future__ import annotations

from typing import Any

from vidur.execution_time_predictor import ExecutionTimePredictorRegistry
from vidur.request_generator import RequestGeneratorRegistry
from vidur.scheduler import GlobalSchedulerRegistry
from vidur.scheduler.replica_scheduler.replica_scheduler_registry import ReplicaSchedulerRegistry
from vidur.types import ExecutionTimePredictorType, GlobalSchedulerType

from vidur_ext.vidur.analytic_predictor import AnalyticExecutionTimePredictor
from vidur_ext.vidur.cluster import VIDURS_SCHEDULERS
from vidur_ext.vidur.learner_flags import PPOGlobalSchedulerModularConfig
from vidur_ext.vidur.local_profile_predictor import (
    CompleteLinearRegressionExecutionTimePredictor,
    LocalLinearRegressionExecutionTimePredictor,
    LocalRandomForrestExecutionTimePredictor,
)
from vidur_ext.vidur.planners import PLANNER_CONFIGS, PlannerGlobalScheduler
from vidur_ext.vidur.requests import WorkloadRequestGenerator, WorkloadRequestGeneratorConfig
from vidur_ext.vidur.router_flags import HEURISTIC_CONFIGS
from vidur_ext.vidur.schedulers import (
    HEURISTIC_SCHEDULERS,
    PPOGlobalSchedulerModular,
    ShortestQueueGlobalScheduler,
)
from vidur_ext.vidur.types import PredictorType
from vidur_ext.vidur.vllm_v1_replica import VllmV1ReplicaScheduler, VllmV1SchedulerConfig


def register() -> None:
    """Make our schedulers, predictors and request streams selectable. Idempotent.

    Vidur's flags follow from the subclasses of its config classes that exist when the command
    line is parsed, so this must run before.
    """
    _register_predictors()
    RequestGeneratorRegistry.register(
        WorkloadRequestGeneratorConfig.get_type(), WorkloadRequestGenerator
    )
    ReplicaSchedulerRegistry.register(VllmV1SchedulerConfig.get_type(), VllmV1ReplicaScheduler)
    _register_schedulers()


def _register_predictors() -> None:
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


def _register_schedulers() -> None:
    """Vidur's own are replaced by what they are on mixed devices; on equal ones nothing changes."""
    for key, scheduler in {**VIDURS_SCHEDULERS, GlobalSchedulerType.LOR: _lor}.items():
        GlobalSchedulerRegistry.unregister(key)
        GlobalSchedulerRegistry.register(key, scheduler)
    GlobalSchedulerRegistry.register(
        PPOGlobalSchedulerModularConfig.get_type(), PPOGlobalSchedulerModular
    )
    for name, config_class in HEURISTIC_CONFIGS.items():
        GlobalSchedulerRegistry.register(config_class.get_type(), HEURISTIC_SCHEDULERS[name])
    for config_class in PLANNER_CONFIGS:
        GlobalSchedulerRegistry.register(config_class.get_type(), PlannerGlobalScheduler)


def _lor(config: Any, replicas: Any) -> Any:
    """Return Vidur's ``lor``, or ours where signals are delayed: Vidur's knows the present."""
    if config.cluster_config.signal_delay_s:
        return ShortestQueueGlobalScheduler(config, replicas)
    return VIDURS_SCHEDULERS[GlobalSchedulerType.LOR](config, replicas)
