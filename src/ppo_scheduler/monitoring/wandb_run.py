"""The same scalars as a Weights & Biases run.

Importing this starts nothing but takes seconds: do so only where the run is wanted.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ppo_scheduler.errors import UserError
from ppo_scheduler.monitoring.scalars import ScalarRow

try:
    import wandb
except ModuleNotFoundError:
    raise UserError(
        'monitoring.wandb needs the package wandb: pip install "ppo-scheduler[wandb]", or set it '
        "to off"
    ) from None


_PATIENCE_S = 10.0


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what W&B refuses, or its service that was killed, into a ``UserError``."""
    try:
        yield
    except (wandb.Error, OSError) as error:
        said = error if isinstance(error, OSError) else error.message or type(error).__name__
        raise UserError(
            f"W&B: {said}. Log in with `wandb login`, or set monitoring.wandb to offline or off"
        ) from error


def check_online() -> None:
    """Find out in seconds whether runs can be sent to W&B: its own patience is minutes.

    Raises:
        UserError: W&B cannot be reached, or there is no login for it.
    """
    address = wandb.setup().settings.base_url
    try:
        urllib.request.urlopen(address, timeout=_PATIENCE_S).close()
    except urllib.error.HTTPError:
        pass  # an answer
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"W&B: {address} cannot be reached ({reason}). Set monitoring.wandb to offline or off"
        ) from error
    with _refusals():
        if not wandb.login(prompt=False, verify=False):
            raise wandb.Error("there is no login")


class WandbSink:
    """One W&B run; a resumed training continues the run whose id its checkpoint holds."""

    def __init__(
        self,
        folder: Path,
        *,
        mode: Literal["offline", "online"],
        project: str,
        name: str,
        group: str | None = None,
        tags: Sequence[str] = (),
        run_id: str | None,
        history: Iterable[ScalarRow] = (),
    ) -> None:
        """Open the run.

        Args:
            folder: the run's files go to ``wandb/`` below it.
            run_id: the run to continue, or the id that a new one gets; None lets W&B choose.
            history: what the run has not seen yet.

        Raises:
            UserError: W&B cannot be reached, or there is no login for it.
        """
        with _refusals():
            self._run = wandb.init(
                dir=str(folder),
                mode=mode,
                project=project,
                name=name,
                group=group,
                tags=list(tags),
                id=run_id,
                resume=None if run_id is None else "allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        # W&B wants its own step to grow for ever; a resume goes back to its checkpoint's.
        self._run.define_metric("*", step_metric="global_step")
        for step, scalars in history:
            self.record(step, scalars)

    @property
    def run_id(self) -> str:
        """Id under which a later process can continue the run."""
        return str(self._run.id)

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        with _refusals():
            self._run.log({"global_step": global_step, **scalars})

    def close(self) -> None:
        with _refusals():
            self._run.finish()
