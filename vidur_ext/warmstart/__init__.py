"""Warm start: demonstrations by heuristics, and the policy cloned from them."""
