"""The parts of `make real`."""
