"""A run: its beginning, its pipeline, its chunks and how it is going."""
