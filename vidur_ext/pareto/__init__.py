"""What L trades: mean latency against the tail of the first tokens, for planner and policy."""
