"""Recorded request streams: one file each, called by the file's name.

A format's file has ``COLUMNS`` and ``read``, as ``trace_rows.TraceFormat`` describes;
``trace_files.load_trace`` finds them and chooses.
"""
