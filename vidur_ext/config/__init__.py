"""The config of a run: its sections, loading, errors, reference and rules of resuming."""
