"""Recorded request streams. Each format is a module of its own with ``NAME``, ``COLUMNS`` and
``read``, as ``rows.TraceFormat`` describes; ``load.load_trace`` finds them and chooses.
"""
