"""The comparison for people: terminal tables, plots, one self-contained page."""
