"""The small models in ComfyUI and in diffusers."""
