"""What a scheduler is in a comparison, by its name."""

from __future__ import annotations

LEARNED = "ppo"
"""The policy under test; reports highlight it and set it against every other scheduler."""

CONTROLS = frozenset({"always_first"})
"""Deliberately bad schedulers: a workload on which they do not lose cannot tell good from bad."""

ORACLE_MARK = "†"
"""Put after schedulers that know true output lengths, which no real router does."""

CONTROL_MARK = "‡"
"""Put after controls."""

ORACLE_NOTE = f"{ORACLE_MARK} knows true output lengths, which no real router does: not a rival"
CONTROL_NOTE = (
    f"{CONTROL_MARK} deliberately bad control: a workload on which it does not lose proves nothing"
)


def marked(name: str, *, oracle: bool) -> str:
    """Return ``name`` with the marks it has to carry wherever it is shown."""
    marks = (ORACLE_MARK if oracle else "") + (CONTROL_MARK if name in CONTROLS else "")
    return f"{name} {marks}" if marks else name
