"""Fitting the constants of a device to measurements of a user's own server."""
