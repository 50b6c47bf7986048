"""A trained policy where requests are routed: NumPy and the standard library are all it needs.

``RoutingPolicy`` is the one of ``policy`` once it is trained, and keeps its name since it makes the
same choices. It has a package of its own so that no import leads from here to torch.
``policy.export`` writes what ``RoutingPolicy.load`` reads.
"""

from ppo_scheduler.deployed.document import Feature
from ppo_scheduler.deployed.policy import RoutingPolicy, Snapshot

__all__ = ["Feature", "RoutingPolicy", "Snapshot"]
