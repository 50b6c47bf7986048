"""``vidur-ppo compare``: a policy against every heuristic on held-out workloads."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ppo_scheduler.errors import UserError, printable
from vidur_ext.commands.options import DEFAULT_CONFIG, Quiet, output_root, set_option
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.processes import compute_with
from vidur_ext.run_folder import RunFolder

_LOG = logging.getLogger("ppo")
_KIND = "scheduler_comparison"


def compare(
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run whose policies and config are taken (default: the newest that has a policy, "
            "below training.output_root of --config)",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="A policy file instead of a run's; say it again for each further one",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help=f"JSON config (default: the run's; with --policy {DEFAULT_CONFIG.name})",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[list[str] | None, set_option("Override one key, e.g. workload.qps=30")] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder of the report (default: a new one in {_KIND}/)", show_default=False
        ),
    ] = None,
    loads: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE,SHARE,...",
            help="Compare at these shares of saturation too, e.g. 0.5,0.7,0.9,1.0,1.1",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare on workloads that no training has seen; write the report as HTML, PNG and JSON.

    The newest run again, at another load: vidur-ppo compare --set workload.qps=30

    A policy by itself: vidur-ppo compare --policy policy.pt --config my.json

    Several, also against the first: vidur-ppo compare --policy old=a/policy.pt --policy b/policy.pt
    """
    shares = [] if loads is None else parsed_loads(loads)
    if run is not None and policy:
        raise UserError("--run and --policy both say what is compared: leave one of them out")
    if policy:
        named = named_policies(policy)
        loaded = load_config(config or DEFAULT_CONFIG, set_ or [])
        _compare(loaded, named, {}, output_dir, quiet, shares)
        return
    chosen, policies, origin = _policies(run, config)
    loaded = load_config(config or chosen.config, set_ or [])
    from vidur_ext.evaluation.judging import held_out_of

    facts = {**origin, **held_out_of(chosen, loaded)}
    _compare(loaded, policies, facts, output_dir, quiet, shares)


def _policies(
    run: Path | None, config: Path | None
) -> tuple[RunFolder, dict[str, Path], dict[str, str]]:
    """Return a run, its policies by name, and facts on where they come from."""
    from vidur_ext.runs.status import find_run, newest_run

    root = output_root(config)
    newest = newest_run(root, with_policy=True) if run is None else None
    chosen = newest or find_run(run or root)
    if not chosen.policy.exists():
        raise UserError(
            f"{chosen.path}: holds no policy.pt, its training has not ended yet; name another "
            "run with --run, or a policy file with --policy"
        )
    from vidur_ext.evaluation.judging import origin_of, policies_of

    return chosen, policies_of(chosen), origin_of(chosen)


_LEAST_LOAD, _MOST_LOAD = 0.05, 2.0


def parsed_loads(text: str) -> list[float]:
    """Return the shares of saturation that a text names, by rising load.

    Raises:
        UserError: one is no number or out of range, is there twice, or is alone.
    """
    try:
        loads = sorted({float(one) for one in text.split(",")})
    except ValueError:
        loads = []
    count = len(text.split(","))
    if len(loads) < max(count, 2) or not _LEAST_LOAD <= loads[0] <= loads[-1] <= _MOST_LOAD:
        raise UserError(
            f"--loads {printable(text)}: expected two or more different shares of saturation from "
            f"{_LEAST_LOAD:g} to {_MOST_LOAD:g}, e.g. --loads 0.5,0.7,0.9,1.0,1.1"
        )
    return loads


_LONGEST_NAME = 40
"""It stands beside every figure and at the axes of the pictures."""


def named_policies(texts: Sequence[str]) -> dict[str, Path]:
    """Return policy files by the names under which they are compared.

    Args:
        texts: ``NAME=FILE`` or ``FILE``. One without a name is "ppo" if it is alone; of several it
            has that of its folder, and its own unless that is ``policy.pt``.

    Raises:
        UserError: a name or a file is there twice, or a name cannot be one of a policy.
    """
    from vidur_ext.evaluation.comparison import is_policy
    from vidur_ext.evaluation.metrics import LEARNED

    found: dict[str, Path] = {}
    for text in texts:
        name, file = _name_and_file(text)
        if name is None:
            name = LEARNED if len(texts) == 1 else _name_of(file)
        fits = name[:1].isalnum() and len(name) <= _LONGEST_NAME and name.isprintable()
        if not (fits and is_policy(name)):
            raise UserError(
                f"--policy {printable(text)}: {name!r} is no name for a policy: say --policy "
                f"NAME=FILE with a name of at most {_LONGEST_NAME} printable characters, which "
                "begins with a letter or digit and is no scheduler's"
            )
        if name in found:
            raise UserError(
                f"--policy names {name!r} twice: give each a name of its own, --policy NAME=FILE"
            )
        same = next((of for of, other in found.items() if other.resolve() == file.resolve()), None)
        if same is not None:
            raise UserError(
                f"--policy {printable(text)}: that file is compared as {same!r} already: "
                "leave one out"
            )
        found[name] = file
    return found


def _name_and_file(text: str) -> tuple[str | None, Path]:
    name, equals, file = text.partition("=")
    if not equals or os.sep in name or Path(text).exists():
        return None, Path(text).expanduser()
    return name, Path(file).expanduser()


def _name_of(file: Path) -> str:
    place = file.resolve()
    return place.parent.name if place.name == "policy.pt" else f"{place.parent.name}/{place.stem}"


def _compare(
    config: TrainingConfig,
    policies: dict[str, Path],
    origin: dict[str, str],
    output_dir: Path | None,
    quiet: bool,
    loads: Sequence[float],
) -> None:
    if output_dir is not None and RunFolder(output_dir).comparison.exists():
        raise UserError(
            f"--output-dir {output_dir}: holds a comparison already. Choose another folder, or "
            "leave --output-dir out for a new one"
        )
    # The simulator and torch take seconds to import: not before the command line is known good.
    from ppo_scheduler.policy.routing_policy import load_policy
    from vidur_ext.evaluation.saturation import check_engine_finds_it
    from vidur_ext.routing.features import observation_schema
    from vidur_ext.training.feasible import check_feasible

    for path in policies.values():
        load_policy(path, observation_schema(config.observation))
    check_feasible(config)
    if loads:
        check_engine_finds_it(config)
    from ppo_scheduler.errors import Interrupted
    from ppo_scheduler.monitoring.run_log import run_log
    from vidur_ext.evaluation.judging import judge

    if output_dir is not None:
        folder = RunFolder.at(output_dir)
    else:
        root = Path(config.training.output_root)
        folder = RunFolder.create(root, _KIND, datetime.now())
    compute_with(config.training.torch_threads)
    with run_log(folder.path / "comparison.log", config.monitoring.log_level, quiet=quiet):
        try:
            _LOG.info("the policies: %s", ", ".join(map(str, policies.values())))
            judge(config, policies, folder, quiet, origin, loads)
        except Interrupted as stop:
            raise stop.saying(f"{folder.path} holds no report") from None
