"""Rollout, advantages, losses, update, and the Learner that owns them."""
