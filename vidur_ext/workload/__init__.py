"""Request streams: synthetic and replayed, seeded, and cut without a seam."""
