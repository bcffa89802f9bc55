"""What keeps a run from being accelerated at all: known before it begins, or seen as it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from ..families import Family
from ..reach import InReach
from ..sites import watching_blocks
from .site_choice import COMPILED

# Caches of models themselves, by their place in the transformer_options.
OWN_CACHES = {"k6_magcache": "MagCache", "hy3_spectrum": "Spectrum"}
# Where Nunchaku's Flux keeps what its loader calls cache_threshold.
NUNCHAKU_THRESHOLD = "residual_diff_threshold_multi"
WRAPPER = "model_function_wrapper"  # in the model_options
SKIPS = "so that it may skip steps itself; remove one of the two"


def obstacle_of(model_options: dict[str, Any], network: nn.Module) -> str:
    """Why this run can't be accelerated, or ""."""
    transformer_options = model_options.get("transformer_options", {})
    if "easycache" in transformer_options:
        return "the model also has EasyCache or LazyCache on it, which skips steps itself; remove one of the two"
    if own := next((name for key, name in OWN_CACHES.items() if key in transformer_options), ""):
        return f"the model also has {own} on it, which skips steps itself; remove one of the two"
    if type(model_options.get(WRAPPER)).__name__ == "SpotDiffusion":
        return "SpotDiffusion moves its tiles with every step, so that no feature is like the last; take another method"
    if _nunchaku_threshold(network) > 0:
        return (
            "this model has Nunchaku's own cache on, which skips blocks itself; set cache_threshold in Nunchaku's "
            "loader to 0")
    if hasattr(network, "init_kv_caches"):
        return "this model makes its video piece by piece and remembers what it saw, so that it has to run every time"
    return ""


class WatchedWrapper(InReach):
    """Another pack's model function wrapper, in the options of one run, and what it does there.

    One that runs the network as it is in every call skips nothing (DyPE, tiles). One that leaves it out, or
    puts something in the place of its parts while it runs (TeaCache, WaveSpeed), may skip steps by itself. Copied or
    pickled it is the wrapper that it watches.
    """

    def __init__(self, wrapper: Callable[..., Any], network: nn.Module, family: Family, found: Callable[[str], None]):
        self.wrapper, self.network, self.family, self._found = wrapper, network, family, found
        self.skipped = False  # blocks were, by ourselves, in the call of the network that is under way

    def __call__(self, model_function: Callable[..., Any], args: dict[str, Any]) -> Any:
        before, calls = _parts(self.network), 0

        def run_network(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            changed = [name for name, part in _parts(self.network).items() if part is not before.get(name)]
            if changed:
                self._found(f"another node changes {min(changed)} of the network while it runs (as TeaCache and "
                            f"WaveSpeed do), {SKIPS}")
            ran: list[str] = []
            self.skipped = False
            with watching_blocks(self.network, self.family, ran):
                result = model_function(*args, **kwargs)
            if self.family.blocks and not ran and not self.skipped:
                self._found(f"another node's model function wrapper left out the network's blocks, {SKIPS}")
            return result

        result = self.wrapper(run_network, args)
        if not calls:
            self._found(f"another node's model function wrapper did not run the network, {SKIPS}")
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.wrapper,)


def watch_wrapper(model_options: dict[str, Any], network: nn.Module, family: Family,
                  found: Callable[[str], None]) -> None:
    """In a run's own options. found: told why the run can't be accelerated after all."""
    if wrapper := model_options.get(WRAPPER):
        if COMPILED in model_options:
            family = replace(family, blocks=())  # whose modules are not called then
        model_options[WRAPPER] = WatchedWrapper(wrapper, network, family, found)


def blocks_are_skipped(model_options: dict[str, Any]) -> None:
    """In the call of the network that is under way, by ourselves."""
    if isinstance(wrapper := model_options.get(WRAPPER), WatchedWrapper):
        wrapper.skipped = True


def _parts(network: nn.Module) -> dict[str, Any]:
    """What it is made of: its modules, and methods of its own."""
    own = {name: part for name, part in vars(network).items() if callable(part)}
    return {**network._modules, **own}


def _itself(wrapper: Any) -> Any:
    return wrapper


def _nunchaku_threshold(network: nn.Module) -> float:
    """That of its first-block cache, 0 without one. A model that ran with it on has a module in its blocks' place from
    then on; of a later change this one is told, the model not."""
    model = getattr(network, "model", None)
    blocks = getattr(model, "cached_transformer_blocks", None) or ()
    kept = (getattr(place, NUNCHAKU_THRESHOLD, None) for place in (model, *blocks))
    return [0.0, *(value for value in kept if isinstance(value, int | float))][-1]
