"""A real ComfyUI in this process: its parts and ours, and what tests watch it with."""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Any
from unittest import mock

import pytest
import torch
from distance import distance as distance
from hosts import MISSING, STUBS, load_pack, this_host

HOST = this_host()
if HOST is None:
    pytest.skip(MISSING, allow_module_level=True)

sys.path[:0] = [str(STUBS), str(HOST)]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True  # as on GPUs, and faster than a CPU's own
    import comfy.controlnet
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sample
    import comfy.samplers
    import comfy.supported_models


PACK = load_pack("a_folder_of_any_name").__name__
attach_module: Any = sys.modules[f"{PACK}.nodes.run.attach"]
run_module: Any = sys.modules[f"{PACK}.nodes.run.run"]
site_choice: Any = sys.modules[f"{PACK}.nodes.run.site_choice"]
femo_core: Any = sys.modules[f"{PACK}.femo_core"]
sites: Any = sys.modules[f"{PACK}.nodes.sites"]
memory: Any = sys.modules[f"{PACK}.nodes.run.memory"]
families: Any = sys.modules[f"{PACK}.nodes.families"]
femo_node: Any = sys.modules[f"{PACK}.nodes.femo"]
dit_host: Any = sys.modules[f"{PACK}.nodes.dit.host"]
dit_model: Any = sys.modules[f"{PACK}.nodes.dit.model"]
calibrate_node: Any = sys.modules[f"{PACK}.nodes.calibrate"]
identity: Any = sys.modules[f"{PACK}.nodes.learned.identity"]
calibration_file: Any = sys.modules[f"{PACK}.nodes.learned.calibration_file"]
taylorseer_node: Any = sys.modules[f"{PACK}.nodes.taylorseer"]


def patcher(config: Any, dtype: torch.dtype = torch.float32, computes_in: torch.dtype | None = None) -> Any:
    """Around a model of random weights, and what it computes in where that is not their dtype."""
    config.set_inference_dtype(dtype, computes_in)
    torch.manual_seed(0)
    model = config.get_model({}, "")
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.05 * torch.randn(parameter.shape))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


def accelerated(model: Any, predictor: Any = None, interval: int = 3, warmup: int = 3, cooldown: int = 0,
                site: str = "hidden") -> Any:
    return attach_module.attach(model, attach_module.CacheConfig(
        predictor or femo_core.TaylorSeer(1), femo_core.Schedule(interval, warmup, cooldown), site=site))


OTHER_CACHES = ("EasyCache", "LazyCache", "function wrapper")


def with_other_cache(model: Any, name: str) -> Any:
    """A clone with ComfyUI's own on it, or with one that changes the network while it runs, as TeaCache does."""
    if name == "function wrapper":
        network = model.model.diffusion_model

        def wrapper(apply: Any, call: dict[str, Any]) -> Any:
            with mock.patch.object(network, "forward", network.forward):
                return apply(call["input"], call["timestep"], **call["c"])

        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model
    import comfy_extras.nodes_easycache as extras

    node = {"EasyCache": extras.EasyCacheNode, "LazyCache": extras.LazyCacheNode}[name]
    return node.execute(model, 0.2, 0.15, 0.95, False).result[0]


def copies(into: dict[str, torch.Tensor]) -> Any:
    """Takes what a site records."""
    return lambda name, feature: into.update({name: feature.clone()})


class Replayed(sites.Forecasts):
    """Recorded features in the place of forecasts."""

    def __init__(self, features: dict[str, torch.Tensor]):
        self.features = features

    def of(self, name: str) -> torch.Tensor:
        return self.features[name]


class RunCounter:
    """Counts in how many calls the network's first block really runs or, where none is known, the network."""

    def __init__(self, model: Any):
        self.network = model.model.diffusion_model
        self.kind, self.count, self.ran = type(self.network), 0, False
        self.part = next(iter(first_parts(self.network).values()), None)
        self.forward = self.kind.forward

    def __enter__(self) -> RunCounter:
        if self.part:
            self.handles = (self.network.register_forward_pre_hook(self._begin),
                            self.part.register_forward_hook(self._add))
        else:
            self.kind.forward = lambda *args, **kwargs: (self._begin(), self._add(), self.forward(*args, **kwargs))[2]
        return self

    def _begin(self, *_: Any) -> None:
        self.ran = False

    def _add(self, *_: Any) -> None:
        self.count += not self.ran
        self.ran = True

    def __exit__(self, *_: object) -> None:
        if self.part:
            for handle in self.handles:
                handle.remove()
        else:
            self.kind.forward = self.forward


class Breaks:
    """Raises at the `at`-th run of a module."""

    def __init__(self, module: torch.nn.Module, error: Exception, at: int):
        self.module, self.error, self.left = module, error, at

    def __enter__(self) -> None:
        self.handle = self.module.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def first_parts(network: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return sites.base.first_parts(network, families.find_family(network))


def tensor_bytes() -> int:
    gc.collect()
    return sum(o.nbytes for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter))


def leftovers(model: Any) -> list[str]:
    """Hooks, replaced forwards, emptied block lists and the like on the shared model: there must be none."""
    network = model.model.diffusion_model
    lists = {path: network.get_submodule(path) for path in families.find_family(network).blocks}
    emptied = [f"{path}: emptied" for path, blocks in lists.items()
               if not [*blocks.children()] or type(blocks).__name__ == "_PassedBy"]
    replaced = ["memory_required"] * ("memory_required" in vars(model.model))
    return emptied + replaced + [
        f"{name}: {kind}"
        for name, module in model.model.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "forward")
        if module.__dict__.get(kind)
    ]
