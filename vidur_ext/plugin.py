"""Registration of everything this plug-in adds to Vidur."""

from __future__ import annotations

from vidur_ext import execution_time, workload
from vidur_ext.scheduler import global_scheduler


def register() -> None:
    """Make our schedulers, predictors and request streams selectable. Idempotent.

    Vidur's flags follow from the subclasses of its config classes that exist when the command
    line is parsed, so this must run before.
    """
    execution_time.register()
    workload.register()
    global_scheduler.register()
