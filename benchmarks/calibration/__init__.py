"""Questions about full steps learned from one run, and about errors: `make bench-calibration`."""
