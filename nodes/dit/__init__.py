"""DiT (class-conditional, ImageNet) for ComfyUI. model.py and checkpoint.py need torch only, host.py the host."""
