"""Vidur's flat flags, at the edge of a process: ``python -m vidur_ext.main`` reads them, and a run
writes the line with which a user, or the process of a chunk, repeats its training.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from vidur.request_generator import RequestGeneratorRegistry

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import Location, choices, path_text
from vidur_ext.config.problems import describe_problems, join_problems
from vidur_ext.config.routers import RoutersSection
from vidur_ext.config.sections import PLANNERS
from vidur_ext.config.training_config import (
    RouterConfig,
    TrainingConfig,
    beyond_the_engine,
    devices_need_analytic,
)
from vidur_ext.vidur import plugin
from vidur_ext.vidur.build import largest_prefill
from vidur_ext.vidur.cluster import SimulationConfig
from vidur_ext.vidur.learner_flags import (
    PARALLEL_FLAGS,
    SCHEDULER_FLAG_PREFIX,
    PPOGlobalSchedulerModularConfig,
    flag_at,
    from_flag,
    learner_config,
    learner_values,
)
from vidur_ext.vidur.limits import check_memory, check_requests
from vidur_ext.vidur.requests import (
    WORKLOAD_FLAG_PREFIX,
    WorkloadRequestGeneratorConfig,
    workload_flags,
    workload_of,
    workload_values,
)
from vidur_ext.vidur.router_flags import prefixed, told
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.run_workloads import longest_request

_PLACES = ("metrics_config_output_dir", "log_level")
"""What a training may be told although it has no key for it."""

_SEEN = ("signal_delay_s", "prefix_knowledge", "kv_event_delay_s", "prefix_index_blocks")
"""Keys of ``observation`` that are flags of the cluster: every router sees so much."""


def cli_flags(
    config: TrainingConfig,
    scheduler: str,
    *,
    metrics_dir: str,
    run_dir: str | None = None,
    pretrained_actor: str | None = None,
    load_checkpoint: str | None = None,
    stop_at_requests: int | None = None,
    lock: int | None = None,
) -> list[str]:
    """Return the flags of ``python -m vidur_ext.main`` for one scheduler.

    Args:
        scheduler: type name of the global scheduler, e.g. ``ppo_modular``.
        metrics_dir: folder below which Vidur creates its own output folder.
        run_dir: ``ppo_modular`` only: folder of log, TensorBoard events and metrics.
        pretrained_actor: ``ppo_modular`` only: warm-started policy to begin from.
        load_checkpoint: ``ppo_modular`` only: checkpoint to resume from.
        stop_at_requests: ``ppo_modular`` only: end after this request of the stream, to be
            resumed; None trains to ``training.total_requests``.
        lock: ``ppo_modular`` only: handle of the checkpoint folder's lock, which the process
            inherits from the owner of the run.
    """
    values = {**_values(config, scheduler), "metrics_config_output_dir": metrics_dir}
    if scheduler in PLANNERS:
        flag = f"{scheduler}_global_scheduler_config_ttft_weight"
        values[flag] = config.lookahead.ttft_weight
    for name, value in told(config.routers, scheduler).items():
        values[prefixed(scheduler, name)] = value
    if scheduler == "ppo_modular":
        learner = {
            **learner_values(config),
            "engine": config.simulation.engine,
            **{name: getattr(config.parallel_training, name) for name in PARALLEL_FLAGS},
            "routers": config.routers.model_dump_json(exclude_defaults=True),
            "run_dir": run_dir,
            "pretrained_actor": pretrained_actor,
            "load_checkpoint": load_checkpoint,
            "stop_at_requests": stop_at_requests,
            "lock": lock,
        }
        values.update({SCHEDULER_FLAG_PREFIX + name: value for name, value in learner.items()})
    return [_text(name, value) for name, value in values.items() if value is not None]


def parse_simulation_config(flags: Sequence[str]) -> Any:
    """Return Vidur's ``SimulationConfig`` of ``flags``; our types are registered.

    Vidur creates its output folder and writes its config there while it is constructed.

    Raises:
        UserError: the model or its longest request does not fit a device's memory, there are
            several devices where only one is possible, or what is to be known of prefix caches
            cannot be.
    """
    plugin.register()
    with _command_line(flags):
        config = SimulationConfig.create_from_cli_args()
    _check_devices(config)
    _check_knowledge(config)
    check_memory(config)
    return config


def check_servable(config: Any) -> None:
    """Check that the cluster of Vidur's config can serve the requests of its generator.

    Raises:
        UserError: it cannot, or the trace cannot be used.
    """
    requests = config.request_generator_config
    ours = isinstance(requests, WorkloadRequestGeneratorConfig)
    check_requests(config, longest_request(workload_of(requests)) if ours else requests.max_tokens)


def is_training(config: Any) -> bool:
    """Tell whether Vidur's config has the learned router in the global scheduler's seat."""
    scheduler = config.cluster_config.global_scheduler_config
    return isinstance(scheduler, PPOGlobalSchedulerModularConfig)


def foreign_requests(config: Any) -> RequestTable | None:
    """Return the requests of one of Vidur's own generators; None for those of our stream."""
    generator = config.request_generator_config
    if isinstance(generator, WorkloadRequestGeneratorConfig):
        return None
    requests = RequestGeneratorRegistry.get(generator.get_type(), generator).generate()
    return RequestTable.from_rows(
        [(r.arrived_at, r.num_prefill_tokens, r.num_decode_tokens) for r in requests]
    )


def training_config(config: Any, flags: Sequence[str], requests: RequestTable | None) -> Any:
    """Return the ``TrainingConfig`` that flags of ``ppo_modular`` describe.

    Args:
        config: Vidur's ``SimulationConfig``, parsed from ``flags``.
        requests: those of ``foreign_requests``.

    Raises:
        UserError: a value is not allowed, or a flag was given that no key of a training stands for.
    """
    scheduler = config.cluster_config.global_scheduler_config
    learner: RouterConfig = learner_config(vars(scheduler))
    tree = {name: getattr(learner, name) for name in RouterConfig.model_fields}
    if requests is not None:
        if learner.checkpointing.validation_freq is not None:
            raise UserError(
                "checkpointing.validation_freq needs workloads of its own, which the request "
                f"generator {config.request_generator_config.get_type()} does not have: use "
                f"stream, or --{SCHEDULER_FLAG_PREFIX}checkpointing_validation_freq null"
            )
        budget = {"total_requests": len(requests)}
        tree["training"] = learner.training.model_copy(update=budget)
    cluster, simulation = _cluster_tree(config), _simulation_tree(config)
    beyond = beyond_the_engine(
        simulation["predictor"], cluster["num_pipeline_stages"], cluster["replica_scheduler"]
    )
    if beyond or learner.observation.is_late:
        # Flags cannot name the schedulers of a comparison, and the usual ones cannot plan here.
        tree["evaluation"] = {"enabled": False}
    try:
        built = TrainingConfig.model_validate(
            {
                **tree,
                "cluster": cluster,
                "simulation": simulation,
                "workload": _workload_tree(config),
                "parallel_training": {name: getattr(scheduler, name) for name in PARALLEL_FLAGS},
                "routers": from_flag("routers", scheduler.routers, RoutersSection),
                # It lies before such a training, which is given what came of it.
                "warmstart": {"enabled": False},
            }
        )
    except ValidationError as error:
        problems = describe_problems(error, TrainingConfig, lambda at: _flag_at(config, at))
        raise UserError(join_problems(problems)) from None
    _check_heard(config, built, _named(flags), foreign=requests is not None)
    return built


def _values(config: TrainingConfig, scheduler: str) -> dict[str, Any]:
    """Return the values of all flags that do not begin with the learned router's prefix."""
    return {
        **_cluster_values(config),
        **_predictor_values(config),
        **_workload_values(config),
        **{f"cluster_config_{name}": getattr(config.observation, name) for name in _SEEN},
        "global_scheduler_config_type": scheduler,
        "seed": config.training.seed % 2**32,
        "log_level": config.monitoring.log_level,
        "metrics_config_write_metrics": False,
        "metrics_config_enable_chrome_trace": False,
    }


def _cluster_flags(replica_scheduler: str) -> dict[str, str]:
    """Return the simulator's flag of each key of ``cluster`` that a replica scheduler obeys."""
    own = {
        "sarathi": {"chunk_size": "sarathi_scheduler_config_chunk_size"},
        "vllm": {"max_tokens_in_batch": "vllm_scheduler_config_max_tokens_in_batch"},
        "vllm_v1": {
            "chunk_size": "vllm_v1_scheduler_config_chunk_size",
            "prefix_caching": "cache_config_enable_prefix_caching",
        },
    }
    return {
        "num_replicas": "cluster_config_num_replicas",
        "model_name": "replica_config_model_name",
        "device": "replica_config_device",
        "devices": "cluster_config_devices",
        "network_device": "replica_config_network_device",
        "tensor_parallel_size": "replica_config_tensor_parallel_size",
        "num_pipeline_stages": "replica_config_num_pipeline_stages",
        "block_size": "cache_config_block_size",
        "num_blocks": "cache_config_num_blocks",
        "watermark_blocks_fraction": "cache_config_watermark_blocks_fraction",
        "memory_margin_fraction": "cache_config_memory_margin_fraction",
        "replica_scheduler": "replica_scheduler_config_type",
        "batch_size_cap": f"{replica_scheduler}_scheduler_config_batch_size_cap",
        **own.get(replica_scheduler, {}),
    }


def _cluster_values(config: TrainingConfig) -> dict[str, Any]:
    flags = _cluster_flags(config.cluster.replica_scheduler)
    values = {flag: getattr(config.cluster, name) for name, flag in flags.items()}
    if config.cluster.devices is not None:
        values[flags["devices"]] = ",".join(config.cluster.devices)
    return values


def _cluster_tree(config: Any) -> dict[str, Any]:
    """Return the section ``cluster`` of Vidur's config; the inverse of ``_cluster_values``."""
    flat = config.to_dict()
    tree = {
        name: flat[flag]
        for name, flag in _cluster_flags(_replica_scheduler(config)).items()
        if flag in flat
    }
    if tree["devices"] is not None:
        tree["devices"] = tuple(tree["devices"].split(","))
    return tree


def _replica_scheduler(config: Any) -> str:
    return str(config.cluster_config.replica_scheduler_config.get_type())


def _predictor_values(config: TrainingConfig) -> dict[str, Any]:
    kind = config.simulation.predictor
    prefix = f"{kind}_execution_time_predictor_config"
    values: dict[str, Any] = {
        "execution_time_predictor_config_type": kind,
        f"{prefix}_prediction_max_batch_size": config.cluster.batch_size_cap,
        f"{prefix}_prediction_max_tokens_per_request": config.workload.max_tokens,
        f"{prefix}_prediction_max_prefill_chunk_size": largest_prefill(config),
    }
    if config.simulation.profile_dir is not None:
        values[f"{prefix}_profile_dir"] = config.simulation.profile_dir
    return values


def _simulation_tree(config: Any) -> dict[str, Any]:
    predictor = config.execution_time_predictor_config
    return {
        "engine": config.cluster_config.global_scheduler_config.engine,
        "predictor": str(predictor.get_type()),
        "profile_dir": getattr(predictor, "profile_dir", None),
    }


def _workload_values(config: TrainingConfig) -> dict[str, Any]:
    workload = workload_flags(config.workload)
    return {
        "request_generator_config_type": "stream",
        **{WORKLOAD_FLAG_PREFIX + name: value for name, value in workload.items()},
        WORKLOAD_FLAG_PREFIX + "seed": config.training.seed,
        WORKLOAD_FLAG_PREFIX + "num_requests": config.training.total_requests,
    }


def _workload_tree(config: Any) -> dict[str, Any]:
    generator = config.request_generator_config
    if isinstance(generator, WorkloadRequestGeneratorConfig):
        return workload_values(generator)
    return {"max_tokens": generator.max_tokens}


def _flag_at(config: Any, location: Location) -> str:
    """Return the flag that brings the value at a location of a training's config."""
    group, *names = location or ("",)
    if names and group == "cluster":
        return (
            f"--{_cluster_flags(_replica_scheduler(config)).get(str(names[0]), 'cluster_config')}"
        )
    if names and group == "workload":
        return f"--{WORKLOAD_FLAG_PREFIX}{names[0]}"
    if names == ["engine"] or (group == "parallel_training" and names[:1] != ["num_workers"]):
        return f"--{SCHEDULER_FLAG_PREFIX}{names[0]}"
    if group == "routers":
        return f"--{SCHEDULER_FLAG_PREFIX}{path_text(location)}"
    if names and group == "simulation":
        return "--execution_time_predictor_config_type"
    return flag_at(location)


def _check_heard(
    config: Any, built: TrainingConfig, named: Iterable[str], *, foreign: bool
) -> None:
    """Refuse flags that were given and would have no effect on a training.

    Args:
        foreign: the requests come from one of Vidur's own generators, whose flags are Vidur's.
    """
    flat, heard = config.to_dict(), _values(built, "ppo_modular")
    defaults = {field.name: field.default for field in dataclasses.fields(config.__flat_config__)}
    for name in named:
        generators = foreign and "generator_config" in name
        if name.startswith(SCHEDULER_FLAG_PREFIX) or name in _PLACES or generators:
            continue
        if flat[name] != heard.get(name, defaults[name]):
            instead = f"; it would be {heard[name]}" if name in heard else ""
            raise UserError(
                f"--{name} {flat[name]}: a training of ppo_modular has no key for that{instead}. "
                "Leave it out"
            )


def _named(flags: Sequence[str]) -> list[str]:
    """Return the names of the flags on a command line."""
    texts = [flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")]
    return [text.removeprefix("no-") for text in texts]


def _check_devices(config: Any) -> None:
    if config.cluster_config.devices is None:
        return
    predictor = str(config.execution_time_predictor_config.get_type())
    if predictor != "analytic":
        raise UserError(devices_need_analytic(predictor))
    metrics = config.metrics_config
    if metrics.write_metrics and metrics.store_utilization_metrics:
        raise UserError(
            "Vidur computes the utilization of all replicas from one device: with several "
            "devices give --no-metrics_config_store_utilization_metrics"
        )


def _check_knowledge(config: Any) -> None:
    cluster = config.cluster_config
    known, delay_s = cluster.prefix_knowledge, cluster.kv_event_delay_s
    flag = f"--cluster_config_prefix_knowledge {known}"
    allowed = choices(ObservationSection.model_fields["prefix_knowledge"].annotation)
    if known not in allowed:
        raise UserError(f"{flag}: expected {', '.join(allowed)}")
    cached = _replica_scheduler(config) == "vllm_v1" and cluster.cache_config.enable_prefix_caching
    if known != "none" and not cached:
        raise UserError(
            f"{flag}: replicas have prefix caches with --replica_scheduler_config_type vllm_v1 and "
            "--cache_config_enable_prefix_caching: give these, or leave it out"
        )
    if delay_s and known != "exact":
        raise UserError(
            f"--cluster_config_kv_event_delay_s {delay_s:g} delays what replicas report: give "
            "--cluster_config_prefix_knowledge exact, or leave it out"
        )


def _text(name: str, value: Any) -> str:
    """Return the command line's word for one flag: one word, as a value may begin with a dash."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={value}"


@contextmanager
def _command_line(flags: Sequence[str]) -> Iterator[None]:
    """Vidur's parser reads ``sys.argv``; let it see ``flags`` and nothing else."""
    saved = sys.argv
    sys.argv = [saved[0], *flags]
    try:
        yield
    finally:
        sys.argv = saved
