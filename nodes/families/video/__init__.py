"""Videos, and pictures by the same network."""
