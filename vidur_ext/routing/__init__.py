"""What the router sees of the cluster and what it is rewarded for."""
