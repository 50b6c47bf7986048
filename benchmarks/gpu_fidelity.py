"""How far the predictor is from a GPU that nothing was fitted to.

``gpu_iterations.py`` measures on the GPU, which needs nothing of this project; this compares with
what the predictor says. All errors are medians of |predicted / measured - 1| in percent, a bias is
the median of predicted / measured - 1. Iterations have no host time here, as none was measured;
the constants that ``vidur-ppo calibrate`` fits to four fifths of them are judged on the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from gpu_iterations import HEAD_DIM, LLAMA_3_8B, Row
from harness import Figures, run_benchmark_with_options

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.calibration.calibrate import calibrate
from vidur_ext.calibration.formats import iterations as iterations_format
from vidur_ext.calibration.measurements import Iterations
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.execution_time.devices import Device, device_named
from vidur_ext.execution_time.links import node_named
from vidur_ext.execution_time.models import model_named
from vidur_ext.execution_time.operators import Attention, Gemm
from vidur_ext.execution_time.roofline import RooflineModel

MEASURED = Path(__file__).parent / "data" / "h100_busy"

_MANY_TOKENS = 256
"""Above, products compute rather than read weights."""
_SHORT_MS = 0.03
"""Attention that takes less is launches and waiting more than work."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--measured`` and ``--device``."""
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="FOLDER",
        default=MEASURED,
        help="what gpu_iterations.py wrote (default: an H100 that is kept busy)",
    )
    parser.add_argument("--device", default="h100", help="what the simulator calls that GPU")


def measure(arguments: argparse.Namespace) -> Figures:
    """Return the errors; there is nothing to shorten for ``--quick``."""
    device = device_named(arguments.device).model_copy(update={"iteration_overhead_ms": 0.0})
    kernels = _kernels(arguments.measured / "kernels.json")
    iterations = iterations_format.read(arguments.measured / "iterations.csv")
    return (
        kernel_figures(device, kernels)
        | iteration_figures(device, iterations)
        | _calibrated(arguments.device, device.node, iterations)
    )


def _kernels(path: Path) -> dict[str, list[Row]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {kind: document[kind] for kind in ("gemm", "decode", "prefill")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is not what benchmarks/gpu_iterations.py writes ({error!r}); measure again"
        ) from error


def kernel_figures(device: Device, kernels: dict[str, list[Row]]) -> Figures:
    """Return the errors of matrix products and attention, and of large and small ones."""

    def product_ms(row: Row) -> float:
        gemm = Gemm(
            int(row["k"]), int(row["n"]), "bf16", device.kernels, device.sheet, device.gemm_factor
        )
        return gemm.ms(float(row["tokens"]))

    def attention(row: Row) -> Attention:
        heads = int(row["q_heads"]), int(row["kv_heads"])
        return Attention(*heads, HEAD_DIM, device.kernels, device.sheet, device.attention_factor)

    def decode_ms(row: Row) -> float:
        return attention(row).decode_ms(float(row["requests"]), float(row["kv"]))

    def prefill_ms(row: Row) -> float:
        return attention(row).prefill_ms(0.0, float(row["tokens"]))

    figures: Figures = {}
    for kind, predict, is_large, names in (
        ("gemm", product_ms, _has_many_tokens, ("few_tokens", "many_tokens")),
        ("decode", decode_ms, _is_long, ("short", "long")),
        ("prefill", prefill_ms, _is_long, ("short", "long")),
    ):
        rows = kernels[kind]
        errors = _errors(
            np.array([predict(row) for row in rows]), np.array([row["ms"] for row in rows])
        )
        large = np.array([is_large(row) for row in rows])
        figures |= _summary(kind, errors)
        for name, chosen in zip(names, (~large, large), strict=True):
            figures |= _summary(f"{kind}_{name}", errors[chosen])
    return figures


def _has_many_tokens(row: Row) -> bool:
    return row["tokens"] > _MANY_TOKENS


def _is_long(row: Row) -> bool:
    return row["ms"] > _SHORT_MS


def iteration_figures(device: Device, iterations: Iterations) -> Figures:
    """Return the errors of iterations, of each kind, and of those that ``calibrate`` holds out."""
    node = node_named(device.node)
    roofline = RooflineModel(model_named(LLAMA_3_8B.name), device, node, 1, 1)
    predicted = [
        roofline.iteration_time_s(int(decodes), kv, [(0, int(prompt))] if prompt else [])
        for decodes, kv, prompt in zip(
            iterations.decodes, iterations.mean_kv, iterations.prefill_tokens, strict=True
        )
    ]
    errors = _errors(np.array(predicted), iterations.step_s)
    decodes, prompts = iterations.decodes > 0, iterations.prefill_tokens > 0
    return (
        _summary("iteration", errors)
        | _summary("iteration_decode", errors[decodes & ~prompts])
        | _summary("iteration_prompt", errors[prompts & ~decodes])
        | _summary("iteration_mixed", errors[decodes & prompts])
        | _summary("iteration_held_out", errors[iterations.held_out])
    )


def _calibrated(device: str, node: str, iterations: Iterations) -> Figures:
    """Return the constants that fit, and the errors with them on what the fit did not see."""
    cluster = {"device": device, "network_device": node, "model_name": LLAMA_3_8B.name}
    found = calibrate(TrainingConfig.model_validate({"cluster": cluster}), [iterations])
    [judgement] = found.judgements
    fitted = ("gemm_factor", "attention_factor", "iteration_overhead_ms")
    return {
        "gpu_calibrated_median_error": 100.0 * judgement.after.median,
        "gpu_calibrated_bias": 100.0 * judgement.after.bias,
        **{f"gpu_calibrated_{name}": float(getattr(found.fit.device, name)) for name in fitted},
    }


def _errors(predicted: Floats, measured: Floats) -> Floats:
    return 100.0 * (predicted / measured - 1.0)


def _summary(name: str, errors: Floats) -> Figures:
    """Return median and bias; nothing where no such size was measured."""
    if not len(errors):
        return {}
    return {
        f"gpu_{name}_median_error": float(np.median(np.abs(errors))),
        f"gpu_{name}_bias": float(np.median(errors)),
    }


if __name__ == "__main__":
    run_benchmark_with_options("Errors against a GPU", add_options, measure)
