"""The compiled engine: Vidur's simulation of a cluster, in machine code."""

from vidur_ext.engine.simulation import CompiledSimulation

__all__ = ["CompiledSimulation"]
