"""A trained policy where requests are routed: NumPy and the standard library are all it needs.

A package beside ``policy``, not in it: what is here may be copied into a gateway as it is, and no
import leads from here to torch. ``policy.export`` writes what ``RoutingPolicy.load`` reads.
"""

from ppo_scheduler.deployed.document import Feature
from ppo_scheduler.deployed.policy import RoutingPolicy, Snapshot

__all__ = ["Feature", "RoutingPolicy", "Snapshot"]
