"""Names that a user gives: which one was meant, and which may be the path of a file instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

from ppo_scheduler.config.section import at_home


def similar(name: str, known: Iterable[str]) -> list[str]:
    """Return the most similar names first; if there are none, those that contain ``name``."""
    spelled = {other.lower(): other for other in sorted(known)}
    close = difflib.get_close_matches(name.lower(), spelled, cutoff=0.7)
    within = [other for other in spelled if len(name) > 2 and name.lower() in other]
    return [spelled[other] for other in close or within]


def named_or_file(what: str, given: str, known: Iterable[str]) -> str:
    """Return a known name, or the path of a JSON file with the home folder for its ``~``.

    Raises:
        ValueError: it is neither.
    """
    if given in known or given.endswith(".json"):
        return at_home(given)
    hint = "".join(f"; did you mean {json.dumps(name)}?" for name in similar(given, known)[:1])
    raise ValueError(
        f"there is no {what} {given!r}; choose one of {', '.join(known)}, or name a {what} file "
        f"(.json){hint}"
    )
