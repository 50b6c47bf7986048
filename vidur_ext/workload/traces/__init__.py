"""Readers of recorded request streams, one per format."""
