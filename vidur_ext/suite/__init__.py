"""Every scenario trained and judged over several seeds: cells in processes, one report of all."""
