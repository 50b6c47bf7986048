"""Running Vidur itself: flags to config, config and requests to results."""
