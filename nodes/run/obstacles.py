"""What keeps a run from being accelerated at all."""

from __future__ import annotations

from typing import Any

from torch import nn

# Caches of models themselves, by their place in the transformer_options.
OWN_CACHES = {"k6_magcache": "MagCache", "hy3_spectrum": "Spectrum"}
# Where Nunchaku's Flux keeps what its loader calls cache_threshold.
NUNCHAKU_THRESHOLD = "residual_diff_threshold_multi"


def obstacle_of(model_options: dict[str, Any], network: nn.Module) -> str:
    """Why this run can't be accelerated, or ""."""
    transformer_options = model_options.get("transformer_options", {})
    if "easycache" in transformer_options:
        return "the model also has EasyCache or LazyCache on it, which skips steps itself; remove one of the two"
    if own := next((name for key, name in OWN_CACHES.items() if key in transformer_options), ""):
        return f"the model also has {own} on it, which skips steps itself; remove one of the two"
    if "model_function_wrapper" in model_options:
        return (
            "another node (TeaCache, WaveSpeed or the like) has set a model function wrapper, which may skip steps "
            "itself; remove one of the two")
    if _nunchaku_threshold(network) > 0:
        return (
            "this model has Nunchaku's own cache on, which skips blocks itself; set cache_threshold in Nunchaku's "
            "loader to 0")
    if hasattr(network, "init_kv_caches"):
        return "this model makes its video piece by piece and remembers what it saw, so that it has to run every time"
    return ""


def _nunchaku_threshold(network: nn.Module) -> float:
    """That of its first-block cache, 0 without one. A model that ran with it on has a module in its blocks' place from
    then on; of a later change this one is told, the model not. It lies within the model, and so comes last."""
    kept = (vars(module).get(NUNCHAKU_THRESHOLD) for module in network.modules())
    return [0.0, *(value for value in kept if isinstance(value, int | float))][-1]
