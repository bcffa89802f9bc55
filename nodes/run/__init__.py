"""A sampling run: how the host is patched for it, what it knows, and each of its calls of the network."""
