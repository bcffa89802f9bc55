"""Room for what a cache is to hold, by the host's own memory management."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch


def has_room(cache: int, run: int, device: torch.device, guider: Any) -> bool:
    """Whether the device has so many bytes for a cache beside those that the host thinks a run of the network takes, if
    need be after unloading models that this run does not use.

    Where a run has to do with less than the host thinks anyway, the cache may have a quarter of what is free.
    """
    if _free(run, device) < cache:
        used = (guider.model_patcher, *(getattr(guider, "loaded_models", None) or ()))
        keep = [loaded for loaded in comfy.model_management.current_loaded_models
                if loaded.model is not None and any(loaded.model.is_clone(model) for model in used)]
        comfy.model_management.free_memory(cache + run, device, keep_loaded=keep)
    return _free(run, device) >= cache


def _free(run: int, device: torch.device) -> float:
    free = comfy.model_management.get_free_memory(device)
    return free - run if free > run else free / 4
