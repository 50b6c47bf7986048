"""Judging schedulers on equal workloads: runs, summaries, paired statistics, the report."""
