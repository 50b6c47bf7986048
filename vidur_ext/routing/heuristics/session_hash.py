"""A session's requests all go to one replica, which a hash of the session gives.

As session routing of the vLLM production stack (vllm-project/production-stack@a6c01db0,
``routing_logic.py``), which sends requests without a session to the replica of the lowest rate;
here they have the session that ``workload.routed_sessions`` gives them: that of the first segment
of their prompts or, without texts, one of their own. The hash is no ring but an order of all
replicas.
"""

from ppo_scheduler.compiled import compiled
from ppo_scheduler.observation import Floats
from vidur_ext.routing.comparing import SeenAll
from vidur_ext.routing.hashing import order_by_hash
from vidur_ext.routing.thresholds import Thresholds

READS_SESSIONS = True


@compiled
def score_all(seen: SeenAll, told: Thresholds, scores: Floats) -> None:
    order_by_hash(seen.request.session, scores)
