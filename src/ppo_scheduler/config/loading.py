"""Reading the JSON config, with errors that say where, what, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from ppo_scheduler.config.fields import Location
from ppo_scheduler.config.json_text import read_json_object
from ppo_scheduler.config.overrides import apply_overrides
from ppo_scheduler.config.problems import describe_problems, join_problems
from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError

_COMMAND_LINE = "command line"


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Return the validated config of a JSON file (None: the defaults) with overrides applied.

    Variables in paths are replaced; relative paths count from the working directory.

    Args:
        overrides: texts ``a.b=value``; the value is JSON, or plain text if it is no JSON.

    Raises:
        UserError: naming every problem with its JSON path, its value and what is allowed.
    """
    tree = {} if path is None else read_json_object(path)
    overridden = apply_overrides(tree, overrides)

    def origin(location: Location) -> str:
        return _origin(path, overridden, tuple(location))

    try:
        text = json.dumps(tree, ensure_ascii=False).encode("utf-8")
        return TrainingConfig.model_validate_json(text).with_paths()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{origin(())}: {error.object[error.start]!a} is half of a character; write all of it"
        ) from None
    except ValidationError as error:
        raise UserError(join_problems(describe_problems(error, TrainingConfig, origin))) from None


def dump_config(config: TrainingConfig) -> str:
    """Return the whole config as JSON text, every key with its value."""
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def _origin(
    file: Path | None, overridden: Sequence[tuple[str, ...]], location: tuple[str | int, ...]
) -> str:
    """Return who set the value at ``location``, or the values of the group there."""
    if file is None:
        return _COMMAND_LINE if overridden else "defaults"
    if any(location[: len(path)] == path for path in overridden):
        return _COMMAND_LINE
    if any(path[: len(location)] == location for path in overridden):
        return f"{file} and {_COMMAND_LINE}"
    return str(file)
