"""Points over L against the best heuristic, which of them are worth choosing, and which L is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FRONT_VERSION = 1

MOST_TTFT_P99 = 1.1
"""A router's p99 TTFT may be this many times the best heuristic's."""


@dataclass(frozen=True)
class Latencies:
    """The two figures that L trades [s]."""

    e2e_mean_s: float
    ttft_p99_s: float

    def to_dict(self) -> dict[str, float]:
        """Return plain Python values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Point:
    """A router that was made for one L.

    Attributes:
        weight: L.
        e2e: mean E2E / that of the best heuristic: 0.97 is 3 % better.
        ttft_p99: the same of p99 TTFT.
    """

    weight: float
    latencies: Latencies
    e2e: float
    ttft_p99: float

    @classmethod
    def against(cls, best: Latencies, weight: float, ours: Latencies) -> Point:
        """Return a router's point; ``best`` is the best heuristic's."""
        return cls(
            weight, ours, ours.e2e_mean_s / best.e2e_mean_s, ours.ttft_p99_s / best.ttft_p99_s
        )

    @property
    def within(self) -> bool:
        """Whether its first tokens come early enough."""
        return self.ttft_p99 <= MOST_TTFT_P99

    def dominated_by(self, other: Point) -> bool:
        """Return whether another one is as good in both figures, and better in one."""
        ours, theirs = (self.e2e, self.ttft_p99), (other.e2e, other.ttft_p99)
        return theirs != ours and all(t <= o for t, o in zip(theirs, ours, strict=True))


@dataclass(frozen=True)
class Front:
    """One kind of router at every L of the grid, by rising L."""

    router: str
    points: tuple[Point, ...]

    @property
    def smallest_within(self) -> float | None:
        """The L to take: the smallest one whose first tokens come early enough; None if none is."""
        return next((point.weight for point in self.points if point.within), None)

    def on_front(self, point: Point) -> bool:
        """Return whether no other L is better: whether the point is Pareto-optimal."""
        return not any(point.dominated_by(other) for other in self.points)

    def to_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        return {
            "smallest_within": self.smallest_within,
            "points": [
                {
                    "ttft_weight": point.weight,
                    **point.latencies.to_dict(),
                    "e2e_vs_best_heuristic": point.e2e,
                    "ttft_p99_vs_best_heuristic": point.ttft_p99,
                    "within": point.within,
                    "on_front": self.on_front(point),
                }
                for point in self.points
            ],
        }


@dataclass(frozen=True)
class Tradeoff:
    """Planner and policy over L on the same workloads.

    Attributes:
        best_heuristic: the one with the lowest mean E2E of those that are realistic.
        facts: what the reader must know: workloads, cluster, config digest, versions.
    """

    best_heuristic: str
    best: Latencies
    fronts: tuple[Front, ...]
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Return the whole result as plain Python values, fit for strict JSON."""
        return {
            "schema_version": FRONT_VERSION,
            "best_heuristic": {"name": self.best_heuristic, **self.best.to_dict()},
            "most_ttft_p99_vs_best_heuristic": MOST_TTFT_P99,
            **{front.router: front.to_dict() for front in self.fronts},
            "facts": dict(self.facts),
        }


def front_of(router: str, best: Latencies, measured: Mapping[float, Latencies]) -> Front:
    """Return the front of what was measured by L."""
    points: Sequence[Point] = [
        Point.against(best, weight, measured[weight]) for weight in sorted(measured)
    ]
    return Front(router, tuple(points))
