"""What connects the devices of a replica, and how long its collectives take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.kernels import Grid
from vidur_ext.execution_time.operators import Curve, Values

_EFFICIENCY = 0.77
"""Share of a link that a large ring reaches: 264 of 300 GB/s (two H100) to 364 of 450 (eight)."""
_HOP_MS = 0.0023
"""One of the two steps between two devices: 4.3 us on H100, 4.9 us on A100 for small messages."""


@dataclass(frozen=True)
class Node:
    """Links of a node, one direction, data sheet: in a fast group, in the node, between nodes.

    ``measured`` names the device whose collectives were measured in such a node.
    """

    devices: int
    fast_group: int
    fast_gb_s: float
    node_gb_s: float
    internode_gb_s: float
    measured: str | None = None

    def gb_s(self, span: int) -> float:
        """Return the rate [GB/s] that neighbours reach in a group of ``span`` devices."""
        if span <= self.fast_group:
            return _EFFICIENCY * self.fast_gb_s
        if span <= self.devices:
            return _EFFICIENCY * self.node_gb_s
        return _EFFICIENCY * self.internode_gb_s

    def ring_ms(self, devices: int, numbers: Values) -> Values:
        """Return the time of a ring all-reduce of so many two-byte numbers."""
        steps = 2 * (devices - 1)
        return steps * _HOP_MS + 2.0 * numbers * steps / devices / (self.gb_s(devices) * 1e6)

    def hand_over_ms(self, span: int, numbers: Values) -> Values:
        """Return the time to hand numbers on to a neighbour in a group of ``span`` devices."""
        return _HOP_MS + 2.0 * numbers / (self.gb_s(span) * 1e6)


# NVLink 3 600 GB/s, 4 900, 5 1800, A40 bridge 112.5, PCIe 4 x16 64, PCIe 5 x16 128: both directions
# together, so halved; DGX A100, H100, H200 and B200 have one 200, 400, 400 and 800 Gbit/s adapter
# per GPU, 100 Gbit/s is assumed elsewhere.
NODES = {
    "a40_pairwise_nvlink": Node(8, 2, 56.25, 32.0, 12.5),
    "a100_pairwise_nvlink": Node(4, 2, 300.0, 32.0, 12.5),
    "h100_pairwise_nvlink": Node(4, 2, 300.0, 64.0, 12.5),
    "a100_dgx": Node(8, 8, 300.0, 300.0, 25.0, "a100"),
    "h100_dgx": Node(8, 8, 450.0, 450.0, 50.0, "h100"),
    "h200_dgx": Node(8, 8, 450.0, 450.0, 50.0, "h200"),
    "b200_dgx": Node(8, 8, 900.0, 900.0, 100.0, "b200"),
    "l40_pcie": Node(8, 1, 32.0, 32.0, 12.5, "l40s"),
    "l40s_pcie": Node(8, 1, 32.0, 32.0, 12.5, "l40s"),
    "rtx_4090_pcie": Node(8, 1, 32.0, 32.0, 12.5),
    "rtx_pro_6000_pcie": Node(8, 1, 64.0, 64.0, 12.5, "rtx_pro_6000"),
}


def node_named(name: str) -> Node:
    """Return a node by its name.

    Raises:
        UserError: it is unknown.
    """
    if name not in NODES:
        raise UserError(
            f"the analytic predictor does not know the node {name!r}; "
            f"choose one of {', '.join(NODES)}"
        )
    return NODES[name]


def measured_all_reduce(grid: Grid, devices: int) -> Curve | None:
    """Return the measured times over numbers, for as many devices or a few more; None beyond."""
    groups, numbers = grid.axes
    place = int(np.searchsorted(groups, devices))
    return None if place == len(groups) else Curve.never_falling(numbers, grid.log_ratio[place])
