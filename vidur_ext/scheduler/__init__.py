"""Schedulers that the plug-in adds to Vidur."""
