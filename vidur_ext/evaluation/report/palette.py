"""One look per scheduler, the same in every plot, told apart without colour vision too.

Colours: Okabe and Ito, "Color Universal Design" (2008), less its yellow, which vanishes on white.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison

LEARNED_COLOUR = "#D55E00"
BASELINE_COLOUR = "#0072B2"
OTHER_BAR = "#A9B8C9"
CONTROL_BAR = "#DDDDDD"

_OTHER_LINES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
_DASHES = ("solid", "dashed", "dashdot", "dotted")


@dataclass(frozen=True)
class BarLook:
    """Fill and hatch of a bar; ``meaning`` goes to the legend."""

    colour: str
    hatch: str
    meaning: str


@dataclass(frozen=True)
class LineLook:
    """Colour, width, dashes and drawing order of a line."""

    colour: str
    width: float
    dashes: str
    order: int


def bar_look(one: SchedulerComparison, baseline: str) -> BarLook:
    """Return the look of a scheduler's bar."""
    if one.learned:
        return BarLook(LEARNED_COLOUR, "", "learned policy")
    if one.name == baseline:
        return BarLook(BASELINE_COLOUR, "", "baseline")
    if one.uses_output_lengths:
        return BarLook("white", "////", "oracle †")
    if one.control:
        return BarLook(CONTROL_BAR, "....", "control ‡")
    return BarLook(OTHER_BAR, "", "other")


def line_looks(comparison: Comparison) -> dict[str, LineLook]:
    """Return the look of each scheduler's line; colour and dashes together are unique up to 20."""
    looks: dict[str, LineLook] = {}
    others = 0
    for one in comparison.schedulers:
        if one.learned:
            looks[one.name] = LineLook(LEARNED_COLOUR, 3.2, "solid", 5)
        elif one.name == comparison.baseline:
            looks[one.name] = LineLook(BASELINE_COLOUR, 2.4, "solid", 4)
        elif one.uses_output_lengths:
            looks[one.name] = LineLook("black", 1.6, "dashed", 3)
        else:
            colour = _OTHER_LINES[others % len(_OTHER_LINES)]
            looks[one.name] = LineLook(colour, 1.5, _DASHES[others // len(_OTHER_LINES) % 4], 2)
            others += 1
    return looks
