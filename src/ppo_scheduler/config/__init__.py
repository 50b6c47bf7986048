"""The config of the learner: its sections, and what a section is."""
