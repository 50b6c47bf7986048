"""Training: episodes inside Vidur, resumable at any decision, and the pipeline around them."""
