"""Readers of recorded request streams, one per format; ``load.load_trace`` chooses."""
