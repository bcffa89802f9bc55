"""FeMo and TaylorSeer feature forecasting for diffusion transformers: a ComfyUI custom node pack."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI calls this once to get the pack's nodes."""
    from .nodes import FemoExtension

    return FemoExtension()
