"""vLLM's V1 scheduler and its prefix cache, in plain Python and free of Vidur's types."""
