"""Room for the cache, by what the host itself goes by."""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from comfy_host import accelerated, comfy, memory
from small_models import available, build, noise, sample
from small_videos import VIDEOS
from test_flux import sample as sample_flux

management = comfy.model_management
TOGETHER = [small for small in VIDEOS if small.beside and available(small)]


def fills_the_device(monkeypatch):
    monkeypatch.setattr(
        management, "get_free_memory", lambda _=None, torch_free_too=False: (0, 0) if torch_free_too else 0)


def test_weights_that_make_room_by_themselves_are_room(flux, reports, monkeypatch):
    """Under DynamicVRAM they may fill the device; the patcher knows what they would give up."""
    fills_the_device(monkeypatch)
    monkeypatch.setattr(type(flux), "get_free_memory", lambda *_: 10**12, raising=False)
    freed = []
    monkeypatch.setattr(memory.comfy.model_management, "free_memory", lambda *args, **_: freed.append(args) or [])
    sample_flux(accelerated(flux, site="hidden"))
    assert (reports[0].settings["site"], reports[0].warnings) == ("hidden", ())
    assert not freed


def test_without_room_by_the_patcher_it_is_the_output(flux, reports, monkeypatch):
    monkeypatch.setattr(type(flux), "get_free_memory", lambda *_: 100, raising=False)
    sample_flux(accelerated(flux, site="hidden"))
    assert reports[0].settings["site"] == "output"


@pytest.mark.parametrize("dynamic", [True, False])
def test_no_model_is_unloaded_that_makes_room_by_itself(flux, dynamic, monkeypatch):
    asked = []
    plain = management.free_memory
    knows = "for_dynamic" in inspect.signature(plain).parameters

    def free_memory(*_args, for_dynamic=False, **_kwargs):
        asked.append(for_dynamic)
        return []

    free_memory.__signature__ = inspect.signature(plain)
    monkeypatch.setattr(management, "free_memory", free_memory)
    patcher = SimpleNamespace(
        load_device=torch.device("cpu"), model=flux.model, get_free_memory=lambda _: 10, is_dynamic=lambda: dynamic)
    room = memory.Room(SimpleNamespace(model_patcher=patcher, loaded_models=[]), patcher.load_device, 2)
    assert not room.is_free(1000, 0)
    assert asked == [dynamic and knows]


def test_a_cache_on_another_device_goes_by_that_device(flux, monkeypatch):
    monkeypatch.setattr(management, "get_free_memory", lambda _=None, torch_free_too=False: 10**9)
    patcher = SimpleNamespace(load_device=torch.device("meta"), model=flux.model, get_free_memory=lambda _: 0)
    room = memory.Room(SimpleNamespace(model_patcher=patcher, loaded_models=[]), torch.device("cpu"), 2)
    assert room.is_free(10**8, 0)


@pytest.mark.parametrize("small", TOGETHER, ids=lambda small: small.name.replace(" ", "-"))
def test_a_run_is_reckoned_as_the_host_does(small, monkeypatch):
    """Latents that are sampled together are packed into one, with their channels."""
    shapes = []
    run = memory.Room.run
    monkeypatch.setattr(
        memory.Room, "run", lambda self, shape: (shapes.append(tuple(shape)), run(self, shape))[1])
    sample(small, accelerated(build(small)), steps=5)
    numbers = sum(math.prod(part.shape[1:]) for part in noise(small).unbind())
    assert shapes == [(1, 1, numbers)] * 2
