"""``vidur-ppo validate-model``: whether a policy file can begin a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands.options import DEFAULT_CONFIG, Json, set_option
from vidur_ext.commands.printing import print_json
from vidur_ext.config.loading import load_config

if TYPE_CHECKING:
    from vidur_ext.warmstart.external_model import ModelReport


def validate_model(
    model: Annotated[Path, typer.Argument(metavar="PATH", help="Policy file to check")],
    config: Annotated[
        Path | None,
        typer.Option(
            help=f"JSON config it is to fit (default: the program's {DEFAULT_CONFIG.name})",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[list[str] | None, set_option("Override one key of the config")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only why it does not fit")] = False,
    as_json: Json = False,
) -> None:
    """Check a policy for --external-pretrain and --finetune; exit status 1 if it does not fit."""
    loaded = load_config(config or DEFAULT_CONFIG, set_ or [])
    if not model.is_file():
        raise UserError(f"{model}: there is no such file; name a pretrained_actor.pt or policy.pt")
    from vidur_ext.warmstart.external_model import check_model

    try:
        report = check_model(model, loaded)
    except UserError as error:
        if as_json:
            print_json({"path": str(model), "fits": False, "problem": str(error)})
        else:
            typer.echo(f"does not fit: {error}", err=True)
        sys.exit(1)
    if as_json:
        print_json({"fits": True, "problem": None, **vars(report), "path": str(model)})
    elif not quiet:
        _print(report)


def _print(report: ModelReport) -> None:
    network = ", ".join(f"{name} {value}" for name, value in report.architecture.items())
    lines = {
        "fits": report.path,
        "size": f"{report.size_bytes} bytes",
        "network": f"{report.parameters} weights ({network})",
        "features": f"{report.replica_features} per replica, {report.context_features} in common "
        f"(digest {report.schema})",
        "statistics": f"of {report.states_seen} replica states",
    }
    for name, text in lines.items():
        typer.echo(f"{name:12} {text}")
