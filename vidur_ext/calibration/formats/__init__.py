"""The files that measurements come in, a module for each."""
