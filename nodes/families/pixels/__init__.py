"""Pictures that are drawn in pixels, without a VAE."""
