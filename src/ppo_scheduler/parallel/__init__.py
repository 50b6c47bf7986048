"""How a training is split: into shards, which fix its arithmetic, and over processes."""
