"""The typed JSON configuration and its translation into simulator flags."""
