"""The learner: numbers in, numbers out. Imports neither vidur nor vidur_ext."""
