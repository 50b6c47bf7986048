"""``python -m vidur_ext.main <flags>``: Vidur's own main with our types registered.

With ``--global_scheduler_config_type ppo_modular`` the simulation trains the policy over the
configured request stream; with any other scheduler it is exactly Vidur's simulation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vidur.simulator import Simulator
from vidur.utils.random import set_seeds

from vidur_ext.exits import exit_status
from vidur_ext.processes import end_with_parent
from vidur_ext.training.train import run_training
from vidur_ext.vidur.flags import parse_simulation_config
from vidur_ext.vidur.schedulers import (
    PPOGlobalSchedulerModularConfig,
)


def run(flags: Sequence[str]) -> None:
    """Simulate or train as Vidur's flat flags say."""
    config = parse_simulation_config(flags)
    set_seeds(config.seed)
    scheduler_config = config.cluster_config.global_scheduler_config
    if isinstance(scheduler_config, PPOGlobalSchedulerModularConfig):
        run_training(config)
    else:
        Simulator(config).run()


def main() -> None:
    """Entry point: user errors end in one line and status 2, signals in 128 + number.

    A chunk of a training ends with the driver that started it.
    """

    def program() -> None:
        end_with_parent()
        run(sys.argv[1:])

    sys.exit(exit_status(program))


if __name__ == "__main__":
    main()
