"""Pictures: of the time before FLUX.1."""
