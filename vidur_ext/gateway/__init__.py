"""A trained policy in front of a real cluster: from what a gateway knows to a choice."""
