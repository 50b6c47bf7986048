"""How every program of this project ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from ppo_scheduler.errors import UserError
from vidur_ext.training.interruption import Interrupted


def exit_status(program: Callable[[], None]) -> int:
    """Run ``program``; return 0, or 2 for a user's error, or 128 + n for signal n.

    Anything else is a bug and keeps its traceback.
    """
    try:
        program()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        name = signal.Signals(stop.number).name
        saved = f"saved {stop.checkpoint}" if stop.checkpoint else "checkpoints are switched off"
        print(f"stopped by {name}; {saved}", file=sys.stderr)
        return 128 + stop.number
    except EOFError:
        print("the input ended before the question was answered; nothing done", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT before anything was left to save", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0
