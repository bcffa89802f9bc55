"""Room for what a cache is to hold, by the host's own memory management."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ..families import Family
from ..sites import SITES, SampleSize, replaced


class Room:
    """What a run may take on the device that holds its cache.

    buffers: tensor sets that a predictor keeps. While one is updated it is there twice, of one feature at a time.
    """

    def __init__(self, guider: Any, device: torch.device, buffers: int):
        self.guider, self.device, self.buffers = guider, device, buffers
        self.patcher = guider.model_patcher
        self.shared = device == self.patcher.load_device  # with the network and its activations

    def needed(self, features: int) -> int:
        """Bytes, for features of so many."""
        return features * self.buffers

    def run(self, shape: Sequence[int]) -> int:
        """Bytes that the host thinks a run of the network on an input of this shape takes."""
        return int(self.patcher.model.memory_required(list(shape))) if self.shared else 0

    def could_be(self, size: int, run: int) -> bool:
        """Whether the device, with nothing on it but this model, has so many bytes beside those of a run.

        Of a model that is too large for the device the host keeps part elsewhere: then the cache may have a quarter.
        """
        weights = self.patcher.model_size() if self.shared else 0
        room = _beside(run, comfy.model_management.get_total_memory(self.device))
        return size <= max(room - weights, room / 4)

    def is_free(self, size: int, run: int) -> bool:
        """Whether they are there now, if need be after unloading models that this run does not use."""
        if self._free(run) < size:
            used = (self.patcher, *(getattr(self.guider, "loaded_models", None) or ()))
            keep = [loaded for loaded in comfy.model_management.current_loaded_models
                    if loaded.model is not None and any(loaded.model.is_clone(model) for model in used)]
            comfy.model_management.free_memory(size + run, self.device, keep_loaded=keep, **self._sparing)
        return self._free(run) >= size

    def _free(self, run: int) -> float:
        """By the patcher, where it knows what a model on the device would give up: its weights may fill all of it."""
        by_patcher = getattr(self.patcher, "get_free_memory", None) if self.shared else None
        return _beside(run, (by_patcher or comfy.model_management.get_free_memory)(self.device))

    @property
    def _sparing(self) -> dict[str, bool]:
        """With it the host unloads no model whose weights make room by themselves."""
        knows = "for_dynamic" in inspect.signature(comfy.model_management.free_memory).parameters
        return {"for_dynamic": True} if knows and self.shared and self.patcher.is_dynamic() else {}

    def reserved(self, size: int) -> AbstractContextManager[None]:
        """While open, the host thinks that running the model takes so many bytes more, and loads it accordingly."""
        model = self.patcher.model
        estimate = model.memory_required
        return replaced(model, "memory_required", lambda *args, **kwargs: estimate(*args, **kwargs) + size)


def _beside(run: int, memory: float) -> float:
    """What of the memory is left; where a run has to do with less than the host thinks anyway, a quarter."""
    return memory - run if memory > run else memory / 4


def expected_features(guider: Any, conds: dict[str, Any], shapes: Sequence[Sequence[int]], family: Family,
                      site: str) -> int:
    """Bytes of one set of features of a run on latents of these shapes, before the network has run.

    An estimate: of prompts that take turns each counts, and what a model adds to the tokens of its own does not, but
    for what its family says.
    """
    model, options = guider.model_patcher.model, guider.model_options
    network = model.diffusion_model
    unguided = getattr(guider, "cfg", None) == 1.0 and not options.get("disable_cfg1_optimization")
    itemsize = (model.manual_cast_dtype or model.get_dtype()).itemsize
    latent = sum(map(math.prod, shapes)) // shapes[0][0]
    pad = getattr(network, family.pads_to, None) if family.pads_to else None
    own = [_padded(_tokens(network, family, shape, i), pad) for i, shape in enumerate(shapes)]
    groups = [group or () for name, group in conds.items() if name != "negative" or not unguided]
    expected = 0
    for cond in itertools.chain.from_iterable(groups):
        references = [image for image in cond.get("reference_latents") or () if isinstance(image, Tensor)]
        beside = sum(_tokens(network, family, image.shape) for image in references) * family.heads_see_references
        text = cond.get("cross_attn")
        sample = SampleSize(
            latent, (own[0] + beside, *own[1:]),
            _padded(text.shape[1], pad) if isinstance(text, Tensor) and text.ndim > 1 else 0)
        expected += SITES[site].expected(network, family, sample)
    return expected * shapes[0][0] * itemsize


def _padded(tokens: int, multiple: Any) -> int:
    return math.ceil(tokens / multiple) * multiple if isinstance(multiple, int) and multiple > 0 else tokens


def _tokens(network: nn.Module, family: Family, shape: Sequence[int], index: int = 0) -> int:
    """Of the latent of this index, (B, C, ...). What a model of another pack calls its patch may be anything: then it
    counts as 1."""
    if family.tokens is not None:
        return family.tokens(network, index, shape)
    patch = getattr(network, family.patch, 1) if isinstance(family.patch, str) else family.patch
    sides = list(shape[2:])
    patches = [patch] * min(2, len(sides)) if isinstance(patch, int) else patch
    if not isinstance(patches, list | tuple) or not all(isinstance(part, int) and part > 0 for part in patches):
        patches = []
    patches = ([1] * len(sides) + list(patches))[len(patches):]  # the last ones, for as many sides
    return math.prod(math.ceil(side / part) for side, part in zip(sides, patches, strict=True))
