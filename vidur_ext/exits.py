"""How every program of this project ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from rich.console import Console

from ppo_scheduler.errors import Interrupted, UserError


def exit_status(program: Callable[[], None]) -> int:
    """Run ``program``; return 0, or 2 for a user's error, or 128 + n for signal n.

    Anything else is a bug and keeps its traceback.
    """
    # It asks a training to save; where none listens yet, or any more, it must not kill.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        program()
    except UserError as error:
        _print_error(f"error: {error}")
        return 2
    except Interrupted as stop:
        name = signal.Signals(stop.number).name
        print(f"stopped by {name}; {stop.outcome}", file=sys.stderr)
        return 128 + stop.number
    except EOFError:
        print("the input ended before the question was answered; nothing done", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT before anything was left to save", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _print_error(text: str) -> None:
    # Rich knows when colour is unwanted: no terminal, NO_COLOR, TERM=dumb.
    console = Console(stderr=True)
    console.print(text, style="red", markup=False, highlight=False, emoji=False, soft_wrap=True)
