"""Registration of everything this plug-in adds to Vidur."""

from __future__ import annotations

from vidur_ext.execution_time import register as register_predictors
from vidur_ext.scheduler.global_scheduler import register as register_schedulers
from vidur_ext.workload import register as register_streams


def register() -> None:
    """Make our schedulers, predictors and request streams selectable. Idempotent.

    Vidur's flags follow from the subclasses of its config classes that exist when the command
    line is parsed, so this must run before.
    """
    register_predictors()
    register_streams()
    register_schedulers()
