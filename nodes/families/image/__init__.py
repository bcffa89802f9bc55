"""Pictures: of the time since FLUX.1."""
