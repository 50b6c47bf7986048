"""What commands share: options, help from the config in use, and which checkpoints an operator
means."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import typer

from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.config.sections import PRESETS

if TYPE_CHECKING:
    from ppo_scheduler.checkpoint.names import Retention
    from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
    from vidur_ext.config.training_config import TrainingConfig

_CONFIGS = (Path(__file__).parents[1] / "configs").resolve()
DEFAULT_CONFIG = _CONFIGS / "ppo_warmstart.json"
QUICK_CONFIG = _CONFIGS / "quick_test.json"
"""The program's own, wherever it is started: of the checkout, or inside an installed package."""

Strategy = Literal["last_n", "top_k_val"]

Config = Annotated[
    Path | None,
    typer.Option(
        help=f"JSON config (default: the program's {DEFAULT_CONFIG.name})", show_default=False
    ),
]
ConfigOfHelp = Annotated[
    Path | None,
    typer.Option(help=f"JSON config; default: the program's {DEFAULT_CONFIG.name}", is_eager=True),
]
"""``--config`` of commands whose ``--help`` shows its values: it is read before."""

Quiet = Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]
DoNotAsk = Annotated[bool, typer.Option("--yes", help="Do not ask")]

BcEpochs = Annotated[
    int | None, typer.Option(help="Epochs of imitation at most, or rounds of learning from costs")
]
DemoSteps = Annotated[
    int | None,
    typer.Option(help="Demonstrated decisions: per teacher and load, or priced ones per round"),
]
Keys = Mapping[str, tuple[str, ...]]
"""Dotted config keys that a parameter sets, by the parameter's name."""

WARMSTART_SHORTCUTS = {
    "bc_epochs": ("warmstart.epochs", "warmstart.rounds"),
    "demo_steps": ("warmstart.demo_requests", "warmstart.labels_per_round"),
}
"""The method of the warm start reads one key of each."""
Seed = Annotated[int | None, typer.Option(help="The only seed")]
DemonstrationsOption = Annotated[
    Path | None,
    typer.Option(metavar="SET", help="Clone from this set instead of collecting anew"),
]


def set_option(help_: str = "Override one key") -> Any:
    """Return ``--set KEY=VALUE``, which may be given several times."""
    return typer.Option("--set", metavar="KEY=VALUE", help=help_)


def help_option(keys: Keys, panels: Keys | None = None) -> Any:
    """Return ``--help`` that shows the values of the config in use as defaults.

    Without its file those of an empty config are shown.

    Args:
        keys: of the parameters that set some.
        panels: parameters that are shown together, by what they are for.
    """
    panel_of = {name: panel for panel, names in (panels or {}).items() for name in names}

    def show(context: typer.Context, asked: bool) -> None:
        if not asked:
            return
        quick = context.params.get("quick_test")
        config = QUICK_CONFIG if quick else Path(context.params.get("config") or DEFAULT_CONFIG)
        settings = load_config(config if config.exists() else None).settings()
        for parameter in context.command.params:
            if (panel := panel_of.get(parameter.name or "")) is not None:
                parameter.rich_help_panel = panel  # type: ignore[attr-defined]
            own = keys.get(parameter.name or "", ())
            if own and isinstance(parameter, click.Option):
                values = ["none" if settings[k] is None else json.dumps(settings[k]) for k in own]
                # A narrow terminal breaks lines at spaces, and cuts what has none.
                shown = [f"{key} {value}" for key, value in zip(own, values, strict=True)]
                parameter.help = f"{parameter.help}; default: {', '.join(shown)}"
        typer.echo(context.get_help())
        context.exit()

    return typer.Option("--help", "-h", callback=show, help="Show this message and exit")


def confirmed(question: str) -> bool:
    """Return whether the operator agrees to a deletion.

    Raises:
        UserError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask whether to delete them: say --yes")
    return typer.confirm(question)


Said = tuple[str, str]
"""What was typed, and what it changes in the config as a text ``group.key=value``."""


def changes(
    options: Mapping[str, Any],
    keys: Keys,
    set_: Sequence[str] | None,
    implied: Sequence[Said] = (),
) -> list[str]:
    """Return what options and ``--set`` change in the config, as texts ``group.key=value``.

    Args:
        options: values by parameter; None where an option was not given.
        keys: of each parameter that sets some.
        implied: what other options change.

    Raises:
        UserError: two of them set one key to different values.
    """
    said: list[Said] = [
        (f"--{name.replace('_', '-')}", f"{key}={options[name]}")
        for name, own in keys.items()
        if options[name] is not None
        for key in own
    ]
    said += [*implied, *((f"--set {text}", text) for text in set_ or ())]
    first: dict[str, Said] = {}
    for typed, text in said:
        key = text.partition("=")[0].strip()
        before, same = first.setdefault(key, (typed, text))
        if same != text:
            raise UserError(f"{before} and {typed} both set {key}: say one of them")
    return [text for _, text in said]


_DRAWN = ("qps", "arrival", "burstiness_cv")
_SYNTHETIC = ("rate_profile", "rate_period", "code_fraction", "output_tail_index")
_RECORDED = ("trace_format", "trace_time_unit", "holdout_fraction")
_OF_PRESETS = ("length_scale",)
_IDLE = {
    "synthetic": (*_RECORDED, *_OF_PRESETS),
    "trace": (*_DRAWN, *_SYNTHETIC, *_OF_PRESETS),
    **dict.fromkeys(PRESETS, (*_SYNTHETIC, *_RECORDED)),
}
"""Keys of the workload without effect, by its source."""


def load_changed(path: Path, texts: Sequence[str]) -> TrainingConfig:
    """Return the config of a file with what the command line changes.

    Raises:
        UserError: the config is wrong, or a change of the workload would have no effect.
    """
    loaded = load_config(path, texts)
    source = loaded.workload.source
    for text in texts:
        group, _, name = text.partition("=")[0].strip().partition(".")
        if group == "workload" and name in _IDLE[source]:
            scale = "; rate_scale (--rate-scale) changes its rate" if source == "trace" else ""
            raise UserError(
                f"{text} has no effect with workload.source={source!r}{scale}: leave it out"
            )
    return loaded


def output_root(config: Path | None) -> Path:
    """Return the folder below which a config's runs lie; those of the program's own configs, with
    scenarios, lie below the default one's.

    Raises:
        UserError: the config is wrong.
    """
    return Path(load_config(config or DEFAULT_CONFIG).training.output_root)


def checkpointing_in_use(config: Path | None) -> CheckpointingSection:
    """Return the section of the named config, or else of the newest run, whatever its config was.

    Raises:
        UserError: the config is wrong, or the run's cannot be read.
    """
    from vidur_ext.runs.status import checkpoint_folder, newest_run

    run = newest_run(output_root(None)) if config is None else None
    if run is None:
        return load_config(config or DEFAULT_CONFIG).checkpointing
    section = load_config(run.config).checkpointing
    return section.model_copy(update={"checkpoint_dir": str(checkpoint_folder(run))})


def chosen_folder(dir_: Path | None, config: Path | None) -> Path:
    """Return the checkpoints' folder: the one named, the config's, or the newest run's.

    Raises:
        UserError: the config is wrong.
    """
    return Path(checkpointing_in_use(config).checkpoint_dir) if dir_ is None else dir_


def chosen_section(
    dir_: Path | None, config: Path | None, keep: int | None
) -> CheckpointingSection:
    """Return the section in use, with the folder that was named.

    Raises:
        UserError: it is not known how many to keep; a guess could delete too much.
    """
    if dir_ is None:
        return checkpointing_in_use(config)
    if config is not None:
        section = load_config(config).checkpointing
        return section.model_copy(update={"checkpoint_dir": str(dir_)})
    if keep is None:
        raise UserError(
            "how many checkpoints to keep is not known: say --keep N, or name with --config the "
            "config whose checkpointing.max_checkpoints says it"
        )
    return CheckpointingSection(checkpoint_dir=str(dir_))


def chosen_retention(
    section: CheckpointingSection,
    keep: int | None,
    keep_every: int | None,
    strategy: Strategy | None,
    recorded_keep_every: int | None,
) -> Retention:
    """Return the config's retention with what the command line changes.

    What the training called permanent stays so, unless config or command line say otherwise.
    """
    from ppo_scheduler.checkpoint.names import Retention

    configured = Retention.of(section)
    return Retention(
        strategy or configured.strategy,
        configured.keep if keep is None else keep,
        keep_every or configured.keep_every or recorded_keep_every,
    )


def load_checkpoint(text: str, dir_: Path | None, config: Path | None) -> LoadedCheckpoint:
    """Read and verify a checkpoint given as a path, a PPO step or ``latest``.

    Bad ones that are newer than the latest good one are named on standard error.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    from ppo_scheduler.checkpoint.reading import load, load_named

    is_step = text.isascii() and text.isdecimal()
    if not is_step and text != "latest":
        return load_named(Path(text))
    loaded = load(chosen_folder(dir_, config), int(text) if is_step else text)
    for path, reason in loaded.skipped:
        typer.echo(f"skipped {path}: {reason}", err=True)
    return loaded
