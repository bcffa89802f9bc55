"""Every method on real weights, in a running ComfyUI."""
