"""Questions about time and memory: `make bench-speed`, `make bench-scaling`."""
