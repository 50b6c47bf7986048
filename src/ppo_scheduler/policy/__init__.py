"""The actor-critic network and its action distribution."""
