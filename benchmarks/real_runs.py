"""Real runs of vLLM, simulated request by request.

A run is a folder as LLMServingSim's ``bench/examples`` has them (casys-kaist, MIT): ``meta.json``,
the engine's settings, and ``requests.jsonl``, the engine's log of 25 requests or more. The name of
the folder begins with the device's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.calibration.formats import engine_log
from vidur_ext.calibration.measurements import Requests
from vidur_ext.config.loading import read_json_object
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.runner import runs_on_engine
from vidur_ext.execution_time.devices import device_named
from vidur_ext.execution_time.models import model_names
from vidur_ext.vidur.engine_inputs import engine_cluster

DEVICES = {"RTX4090": "rtx_4090", "RTXPRO6000": "rtx_pro_6000", "A100": "a100", "H100": "h100"}
MODELS = {"Qwen/Qwen3-30B-A3B-Instruct-2507": "Qwen/Qwen3-30B-A3B"}
"""Of the same dimensions; other names are known as they are, or not at all."""


@dataclass(frozen=True)
class Run:
    """A server's settings, as those of a training, and its requests."""

    name: str
    shares_experts: bool
    """Such replicas wait for one another; simulated ones have experts of their own."""
    settings: dict[str, dict[str, Any]]
    measured: Requests


def reason_to_leave_out(folder: Path) -> str | None:
    """Say what of a run the simulator cannot do, or None."""
    engine = _settings_of(folder)
    if _model_of(engine) not in model_names():
        return f"no dimensions of {engine['model']} are known"
    if _device_of(folder) not in DEVICES:
        return f"no device {_device_of(folder)} is known"
    return None


def _device_of(folder: Path) -> str:
    return folder.name.partition("_")[0]


def _model_of(engine: dict[str, Any]) -> str:
    name: str = engine["model"]
    return MODELS.get(name, name)


def _settings_of(folder: Path) -> dict[str, Any]:
    settings = read_json_object(folder / "meta.json").get("engine_kwargs")
    wanted = (
        "model",
        "tensor_parallel_size",
        "data_parallel_size",
        "max_num_seqs",
        "max_num_batched_tokens",
    )
    if not isinstance(settings, dict) or any(key not in settings for key in wanted):
        raise UserError(f"{folder / 'meta.json'}: engine_kwargs must hold {', '.join(wanted)}")
    return settings


def read_run(folder: Path) -> Run:
    """Return a run.

    Raises:
        UserError: naming the file, and the line, that is not as expected.
    """
    measured = engine_log.read(folder / "requests.jsonl")
    shares_experts = _settings_of(folder)["data_parallel_size"] > 1
    return Run(folder.name, shares_experts, _cluster(folder, measured.longest), measured)


def _cluster(folder: Path, longest: int) -> dict[str, dict[str, Any]]:
    """Return the settings of the same server; Sarathi's batches are nearest to vLLM's."""
    engine = _settings_of(folder)
    device = DEVICES[_device_of(folder)]
    cache = read_json_object(folder / "meta.json").get("kv_cache") or {}
    return {
        "cluster": {
            "num_replicas": engine["data_parallel_size"],
            "model_name": _model_of(engine),
            "device": device,
            "network_device": device_named(device).node,
            "tensor_parallel_size": engine["tensor_parallel_size"],
            "replica_scheduler": "sarathi",
            "batch_size_cap": engine["max_num_seqs"],
            "chunk_size": engine["max_num_batched_tokens"],
            "num_blocks": cache.get("num_gpu_blocks"),
        },
        "workload": {"max_tokens": longest},
    }


def simulated(run: Run) -> tuple[Floats, Floats]:
    """Return TTFT and E2E [s] of each request in the simulator."""
    config = TrainingConfig.model_validate(run.settings)
    table = run.measured.table
    [result] = runs_on_engine(config, engine_cluster(config), "round_robin", None, {0: table})
    return result.prefill_completed_at - table.arrived_at, result.completed_at - table.arrived_at
