"""Vidur's cluster with a device per replica, and signals that reach the router late.

Vidur names flags after classes and fields, so both config classes keep Vidur's names. It reads the
types of fields, too: no annotation here may be a text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

from vidur.config import ClusterConfig as VidurClusterConfig
from vidur.config import (
    LinearRegressionExecutionTimePredictorConfig,
    RandomForrestExecutionTimePredictorConfig,
)
from vidur.config import ReplicaConfig as VidurReplicaConfig
from vidur.config import SimulationConfig as VidurSimulationConfig
from vidur.execution_time_predictor import ExecutionTimePredictorRegistry
from vidur.execution_time_predictor.sklearn_execution_time_predictor import (
    SklearnExecutionTimePredictor,
)
from vidur.scheduler.global_scheduler.base_global_scheduler import BaseGlobalScheduler
from vidur.scheduler.global_scheduler.lor_global_scheduler import LORGlobalScheduler
from vidur.scheduler.global_scheduler.random_global_scheduler import RandomGlobalScheduler
from vidur.scheduler.global_scheduler.round_robin_global_scheduler import (
    RoundRobinGlobalScheduler,
)
from vidur.scheduler.replica_scheduler.replica_scheduler_registry import ReplicaSchedulerRegistry
from vidur.types import GlobalSchedulerType

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import device_named
from vidur_ext.execution_time.models import model_named
from vidur_ext.vidur.hardware import register_hardware, register_model
from vidur_ext.vidur.profile_folder import ProfileFolder


@dataclass
class ReplicaConfig(VidurReplicaConfig):
    """A replica whose device, node and model may be ones that Vidur does not know."""

    def __post_init__(self) -> None:
        """Let Vidur know them first.

        Raises:
            UserError: one is unknown, or its file is none.
        """
        register_hardware(self.device, self.network_device)
        register_model(self.model_name)
        super().__post_init__()

    @property
    def attention_head_dim(self) -> int:
        """Width of a head; Vidur takes it for granted that heads divide the embedding."""
        return model_named(self.model_name).head_width


@dataclass
class ReplicaKind:
    """What replicas on one device have in common: Vidur's ``ReplicaConfig`` and ``CacheConfig``."""

    replica_config: Any
    cache_config: Any


@dataclass
class ClusterConfig(VidurClusterConfig):
    """A cluster whose replicas may stand on devices of their own.

    Replicas on ``replica_config.device`` stand in ``replica_config.network_device``, others in
    the usual node of their device. Without ``num_blocks`` each device's memory gives its KV blocks.
    """

    replica_config: ReplicaConfig = field(
        default_factory=ReplicaConfig, metadata={"help": "Replica config."}
    )
    devices: Optional[str] = field(  # noqa: UP045  (Vidur knows optional flags by this)
        default=None,
        metadata={"help": "Device of each replica, separated by commas; all alike by default."},
    )
    signal_delay_s: float = field(
        default=0.0,
        metadata={"help": "How old what the global scheduler sees of the replicas is [s]."},
    )
    prefix_knowledge: str = field(
        default="none",
        metadata={
            "help": "What the global scheduler knows of prefix caches: none, exact, approximate."
        },
    )
    kv_event_delay_s: float = field(default=0.0, metadata={"help": "exact: how old that is [s]."})
    prefix_index_blocks: int = field(
        default=31250, metadata={"help": "approximate: KV blocks it remembers of each replica."}
    )

    def __post_init__(self) -> None:
        """Build the kinds before Vidur fills in ``num_blocks``, which is one device's.

        Raises:
            UserError: there are more or fewer devices than replicas, or one is unknown.
        """
        super().__post_init__()
        if self.devices is None:
            return
        names = self.devices.split(",")
        if len(names) != self.num_replicas:
            raise UserError(
                f"--cluster_config_devices {self.devices} names {len(names)} devices for "
                f"{self.num_replicas} replicas: name one per replica, or change "
                "--cluster_config_num_replicas"
            )
        me: Any = self
        given = me.replica_config
        # A list: Vidur writes what it finds here as JSON, but does not look into dictionaries.
        self.kinds = [self._kind(name, given) for name in dict.fromkeys(names)]
        # Vidur builds replicas of this before ours replace them.
        self.replica_config = self.kinds[0].replica_config

    def _kind(self, device: str, given: Any) -> ReplicaKind:
        node = given.network_device if device == given.device else device_named(device).node
        replica_config = replace(given, device=device, network_device=node)
        return ReplicaKind(replica_config, replace(self.cache_config))


@dataclass
class SimulationConfig(VidurSimulationConfig):
    """Vidur's config with our cluster."""

    cluster_config: ClusterConfig = field(
        default_factory=ClusterConfig, metadata={"help": "Cluster config."}
    )


def replica_kinds(cluster: Any) -> tuple[list[ReplicaKind], list[int]]:
    """Return the different kinds of replicas of a cluster config, and the kind of each replica."""
    devices = getattr(cluster, "devices", None)
    if devices is None:
        kind = ReplicaKind(cluster.replica_config, cluster.cache_config)
        return [kind], [0] * int(cluster.num_replicas)
    order = [kind.replica_config.device for kind in cluster.kinds]
    return cluster.kinds, [order.index(name) for name in devices.split(",")]


def build_predictor(config: Any, kind: ReplicaKind) -> Any:
    """Return Vidur's execution-time predictor of a kind of replica.

    Raises:
        UserError: it needs profiles that cannot be had.
    """
    predictor = config.execution_time_predictor_config
    with _profiles_to_be_had(predictor):
        return ExecutionTimePredictorRegistry.get(
            predictor.get_type(),
            predictor_config=predictor,
            replica_config=kind.replica_config,
            cache_config=kind.cache_config,
        )


_LEARNED = (
    LinearRegressionExecutionTimePredictorConfig,
    RandomForrestExecutionTimePredictorConfig,
)
"""Predictors that learn from profiles, ours of a local folder among them."""


def check_profiles(config: Any) -> None:
    """Find the profiles that a predictor learns from; those of Vidur's hub are fetched.

    Raises:
        UserError: they cannot be had, or are of another model or device.
    """
    predictor = config.execution_time_predictor_config
    if not isinstance(predictor, _LEARNED):
        return
    for kind in replica_kinds(config.cluster_config)[0]:
        replica = kind.replica_config
        if hasattr(predictor, "profile_dir"):
            ProfileFolder(predictor.profile_dir, replica, kind.cache_config.block_size)
        elif not Path(predictor.cache_dir, "hf_predictions").exists():  # else it may do without
            needed = {"_config": predictor, "_replica_config": replica}
            with _profiles_to_be_had(predictor):
                SklearnExecutionTimePredictor._get_input_files(
                    SimpleNamespace(_cache_dir=predictor.cache_dir, **needed)
                )


@contextmanager
def _profiles_to_be_had(predictor: Any) -> Iterator[None]:
    """Turn what Vidur ends with that has no profiles into a ``UserError``."""
    name = predictor.get_type()
    try:
        yield
    except AssertionError as error:
        raise UserError(
            f'simulation.predictor="{name}": the profiles of Vidur\'s hub are those of '
            f"{predictor.model_profiling_dataset} and {predictor.network_profiling_dataset}, which "
            "are no profiles of this cluster.model_name, device or network_device: change these, "
            'or use "analytic"'
        ) from error
    except OSError as error:
        [first, *_] = str(error).splitlines() or [type(error).__name__]
        raise UserError(
            f'simulation.predictor="{name}" needs profiles, which cannot be had ({first}). Those '
            'of Vidur\'s hub need a network: without one use "analytic", or a "local_" predictor '
            "with simulation.profile_dir"
        ) from error


def build_replica_scheduler(config: Any, kind: ReplicaKind, replica: Any, predictor: Any) -> Any:
    """Return Vidur's replica scheduler of a replica of a kind."""
    cluster = config.cluster_config
    return ReplicaSchedulerRegistry.get(
        cluster.replica_scheduler_config.get_type(),
        replica_config=kind.replica_config,
        replica_scheduler_config=cluster.replica_scheduler_config,
        cache_config=kind.cache_config,
        request_generator_config=config.request_generator_config,
        replica=replica,
        num_stages=kind.replica_config.num_pipeline_stages,
        execution_time_predictor=predictor,
    )


class OwnDevices(BaseGlobalScheduler):
    """Gives replicas schedulers of their own kind; Vidur gives all of them those of one."""

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        kinds, kind_of = replica_kinds(config.cluster_config)
        if len(kinds) == 1:
            return
        predictors = [build_predictor(config, kind) for kind in kinds]
        for index, (replica_id, replica) in zip(kind_of, replicas.items(), strict=True):
            replica._replica_config = kinds[index].replica_config
            self._replica_schedulers[replica_id] = build_replica_scheduler(
                config, kinds[index], replica, predictors[index]
            )


VIDURS_SCHEDULERS = {
    key: type(f"OwnDevices{vidurs.__name__}", (OwnDevices, vidurs), {"__doc__": vidurs.__doc__})
    for key, vidurs in (
        (GlobalSchedulerType.RANDOM, RandomGlobalScheduler),
        (GlobalSchedulerType.ROUND_ROBIN, RoundRobinGlobalScheduler),
        (GlobalSchedulerType.LOR, LORGlobalScheduler),
    )
}
"""Vidur's own global schedulers, by their keys in its registry."""
