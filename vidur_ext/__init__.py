"""The Vidur plug-in: schedulers, workloads, predictor, and everything an operator runs."""
