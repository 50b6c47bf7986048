"""Kinds of traffic with sessions and shared prefixes: one file each, called by the file's name.

``drawn_sessions.Preset`` describes what a file has; ``session_stream`` makes endless streams of it.
"""
