"""The compiled engine as Gymnasium environments, for learners of elsewhere.

``import vidur_ext.gym`` registers ``vidur_ext/Routing-v0``, single and as a vector.
"""

from __future__ import annotations

import gymnasium

ROUTING = "vidur_ext/Routing-v0"

gymnasium.register(
    id=ROUTING,
    entry_point="vidur_ext.gym.routing_env:RoutingEnv",
    vector_entry_point="vidur_ext.gym.routing_vector_env:RoutingVectorEnv",
)
