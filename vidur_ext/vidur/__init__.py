"""All that touches Vidur: its config, simulation, cluster, predictors and schedulers."""
