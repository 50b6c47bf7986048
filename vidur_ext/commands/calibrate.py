"""``vidur-ppo calibrate``: a device file for a user's own server, from their measurements."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.calibration.reading import FormatName
from vidur_ext.commands.options import DEFAULT_CONFIG, Config, Json, changes, set_option
from vidur_ext.commands.printing import Document, console, say, show, table
from vidur_ext.config.loading import load_config

if TYPE_CHECKING:
    from vidur_ext.calibration.calibrate import Calibration
    from vidur_ext.calibration.judging import Errors

_SHORTCUTS = {"device": ("cluster.device",)}


def calibrate(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Iterations (CSV), requests (CSV, JSON lines), the result of vllm bench serve, "
            "AIPerf's profile_export.jsonl",
            exists=True,
            dir_okay=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="The device file to write (.json)")],
    device: Annotated[
        str | None, typer.Option(help="Begin with this device: its name, or a device file")
    ] = None,
    config: Config = None,
    set_: Annotated[
        list[str] | None, set_option("Override one key, e.g. cluster.chunk_size=2048")
    ] = None,
    format_: Annotated[
        FormatName | None,
        typer.Option(
            "--format",
            help="Of the files (default: what their columns or keys say)",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the device file if it is there")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write it even if held-out errors did not become smaller"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit a device's constants to what one replica was measured to do; write a device file."""
    texts = changes(context.params, _SHORTCUTS, set_)
    if device is not None:
        from vidur_ext.execution_time.devices import device_named

        # First, so that --set may say otherwise.
        texts = [f"cluster.network_device={device_named(device).node}", *texts]
    loaded = load_config(config or DEFAULT_CONFIG, texts)
    _check_output(output, overwrite=overwrite)
    # The simulator takes seconds to import: not before the command line is known good.
    from ppo_scheduler.files import write_file
    from vidur_ext.calibration.calibrate import calibrate as calibrated
    from vidur_ext.calibration.reading import read_measurements

    measured = [read_measurements(path, format_) for path in files]
    found = calibrated(loaded, measured)
    document = _document(found, {str(one.path): one.describe() for one in measured})
    writes = found.improves or force
    if writes:
        text = found.fit.device.model_dump_json(indent=2)
        write_file(output, f"{text}\n".encode())
        device_key = shlex.quote(f"cluster.device={output}")
        document["use"] = f"--set {device_key} --set cluster.network_device={found.start.node}"
    show(document, _print, as_json=as_json)
    if not writes:
        raise UserError(
            "with the fitted constants the errors on held-out rows are not smaller, so nothing was "
            "written; measure more, or other loads, or write them all the same with --force"
        )


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse what could not be written in the end.

    Raises:
        UserError: there is a file already, or no place for one.
    """
    if output.suffix != ".json":
        raise UserError(f"--output {output}: a device file's name ends in .json")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; make it first")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; name the file to write")
    if output.exists() and not overwrite:
        raise UserError(
            f"--output {output}: there is such a file; choose another name, or say --overwrite"
        )


def _document(found: Calibration, files: dict[str, str]) -> Document:
    start, fit = found.start, found.fit
    fitted = {
        name: {
            "before": getattr(start, name),
            "after": getattr(fit.device, name),
            "standard_error": error,
        }
        for name, error in fit.uncertainty.items()
    }
    return {
        "files": files,
        "constants": fitted,
        "left_as_they_are": {name: getattr(start, name) for name in fit.left},
        "held_out": [
            {
                "file": str(one.path),
                "time": one.metric,
                "rows": one.rows,
                "before": _errors(one.before),
                "after": _errors(one.after),
            }
            for one in found.judgements
        ],
        "improves": found.improves,
        "far_off": found.is_far_off,
        "use": None,
    }


def _errors(errors: Errors) -> dict[str, Any]:
    return {"median": errors.median, "p90": errors.p90, "bias": errors.bias}


def _print(document: Document) -> None:
    for path, described in document["files"].items():
        say(f"{path}: {described}")
    constants = table("constant", "before", "after", "±")
    for name, one in document["constants"].items():
        values = (f"{one[key]:.4g}" for key in ("before", "after"))
        constants.add_row(name, *values, f"{one['standard_error']:.2g}")
    for name, value in document["left_as_they_are"].items():
        constants.add_row(name, f"{value:.4g}", "the data do not determine it", "")
    console().print(constants)
    kinds = ("median", "p90", "bias")
    errors = table("held out", "rows", *(f"{kind} before" for kind in kinds), *kinds)
    several = len(document["files"]) > 1
    for row in document["held_out"]:
        name = f"{row['time']}, {row['file']}" if several else row["time"]
        shown = [f"{row['before'][kind]:.1%}" for kind in kinds]
        shown += [f"{row['after'][kind]:.1%}" for kind in kinds]
        errors.add_row(name, str(row["rows"]), *shown)
    console().print(errors)
    if document["far_off"]:
        say(
            "warning: this is not the replica that was measured; check the model, tensor "
            "parallelism, chunk size, batch cap and KV blocks, and that there was one replica"
        )
    if document["use"] is not None:
        say(f"use it with {document['use']}")
