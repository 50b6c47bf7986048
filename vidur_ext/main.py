"""``python -m vidur_ext.main <flags>``: Vidur's own main with our types registered.

With ``--global_scheduler_config_type ppo_modular`` the simulation trains the policy over the
configured request stream; with any other scheduler it is exactly Vidur's simulation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidur_ext.exits import exit_status
from vidur_ext.launched import run_first
from vidur_ext.processes import end_with_parent

if TYPE_CHECKING:
    from vidur_ext.training.train import Job


def run(flags: Sequence[str]) -> None:
    """Simulate or train as Vidur's flat flags say."""
    # The simulator takes seconds to import, and says something at once: not before ``exit_status``
    # has prepared signals and streams.
    from vidur.utils.random import set_seeds

    from vidur_ext.training.train import run_training
    from vidur_ext.vidur.flags import check_servable, is_training, parse_simulation_config
    from vidur_ext.vidur.simulation import RoutedSimulator

    config = parse_simulation_config(flags)
    check_servable(config)
    if is_training(config):
        run_training(job_of(config, flags))
    else:
        set_seeds(config.seed)
        RoutedSimulator(config).run()


def job_of(config: Any, flags: Sequence[str]) -> Job:
    """Return the training that Vidur's ``SimulationConfig``, parsed from ``flags``, describes.

    Raises:
        UserError: a flag has a value that is not allowed, or would have no effect.
    """
    from vidur_ext.run_folder import Owner
    from vidur_ext.training.train import Job
    from vidur_ext.vidur.flags import foreign_requests, training_config

    scheduler = config.cluster_config.global_scheduler_config
    actor = scheduler.pretrained_actor
    requests = foreign_requests(config)
    return Job(
        config=training_config(config, flags, requests),
        run_dir=scheduler.run_dir,
        pretrained_actor=None if actor is None else Path(actor),
        load_checkpoint=scheduler.load_checkpoint,
        stop_at_requests=scheduler.stop_at_requests,
        requests=requests,
        owner=None if scheduler.lock is None else Owner(scheduler.lock),
    )


def _follow() -> None:
    from vidur_ext.training.team import follow

    follow()


def main() -> None:
    """Entry point; see ``exit_status``. A chunk ends with the driver that started it.

    A launcher of processes may start it several times: see ``launched.py``.
    """

    def program() -> None:
        end_with_parent()
        run_first(lambda: run(sys.argv[1:]), _follow)

    sys.exit(exit_status(program))


if __name__ == "__main__":
    main()
