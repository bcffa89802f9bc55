"""ComfyUI's model compiler (0.34 and later), by a stand-in that knows what is allocated between its marks."""

from __future__ import annotations

import gc
import sys
import weakref
from contextlib import contextmanager, nullcontext

import pytest
import torch
from comfy_host import PACK, accelerated, attach_module, comfy, femo_core
from test_flux import sample
from torch.utils._python_dispatch import TorchDispatchMode

compiler = sys.modules[f"{PACK}.nodes.run.compiler"]
call_module = sys.modules[f"{PACK}.nodes.run.call"]


class Compiler(TorchDispatchMode):
    """Notes what is allocated while a network runs, unless it is paused or off, and how much of it outlives the run."""

    def __init__(self):
        super().__init__()
        self.regions, self.pauses, self.depth, self.paused = [], 0, 0, False
        self._seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not self.paused and not compiler.args.disable_comfy_compiler:
            self._seen.append(weakref.ref(result))
        return result

    @contextmanager
    def pause_malloc_graph(self):
        self.pauses += 1
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def run(self, forward, *args, **kwargs):
        self._seen.clear()
        with self:
            result = forward(*args, **kwargs)
        off = compiler.args.disable_comfy_compiler
        self.regions.append((off, sum(found is not None and found is not result for found in self._alive())))
        return result

    def _alive(self):
        gc.collect(1)  # of what is young, as all of this is
        return [ref() for ref in self._seen]


@pytest.fixture
def compiled(flux, monkeypatch):
    """The whole forward is one region, as MiniMax-H3's is; with the head in it."""
    found = Compiler()
    monkeypatch.setattr(compiler.args, compiler.SWITCH, False, raising=False)
    monkeypatch.setattr(compiler, "prefetch", found)
    kind = type(flux.model.diffusion_model)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *args, **kwargs: found.run(
        lambda *a, **k: forward(self, *a, **k), *args, **kwargs))
    return found


def test_it_is_off_in_an_accelerated_run_and_on_again_after(flux, compiled):
    sample(accelerated(flux, site="hidden"))
    assert {off for off, _ in compiled.regions} == {True}
    assert compiler.args.disable_comfy_compiler is False


@pytest.mark.parametrize("error", [RuntimeError("broken"), comfy.model_management.InterruptProcessingException()])
def test_it_is_on_again_after_an_error(flux, compiled, error, monkeypatch):
    def fail(*_args, **_kwargs):
        assert compiler.args.disable_comfy_compiler
        raise error

    monkeypatch.setattr(compiled, "run", fail)
    with pytest.raises(type(error)):
        sample(accelerated(flux, site="hidden"))
    assert compiler.args.disable_comfy_compiler is False


@pytest.mark.parametrize("kind", ["plain", "interval 1", "output"])
def test_it_is_left_as_it_is(flux, compiled, kind):
    """Where no part of the network is recorded or left out; what a user has switched off stays off."""
    model = {
        "plain": flux, "interval 1": accelerated(flux, interval=1), "output": accelerated(flux, site="output"),
    }[kind]
    for switch in (False, True):
        compiler.args.disable_comfy_compiler = switch
        compiled.regions.clear()
        sample(model)
        assert {off for off, _ in compiled.regions} == {switch}
        assert compiler.args.disable_comfy_compiler is switch


@pytest.mark.parametrize("site", ["hidden", "module", "output"])
def test_what_is_recorded_is_none_of_its_business(flux, compiled, site, monkeypatch):
    """Even if it were on: nothing that is allocated within the region outlives it, but what does without us."""
    sample(flux)
    plain = {alive for _, alive in compiled.regions}
    compiled.regions.clear()
    monkeypatch.setattr(attach_module.compiler, "off", lambda _: nullcontext())
    sample(accelerated(flux, femo_core.FeMo(1, gamma=0.05), site=site))
    assert not any(off for off, _ in compiled.regions)
    assert {alive for _, alive in compiled.regions} == plain
    assert compiled.pauses


def test_the_stand_in_would_see_it(flux, compiled, monkeypatch):
    sample(flux)
    plain = {alive for _, alive in compiled.regions}
    compiled.regions.clear()
    monkeypatch.setattr(attach_module.compiler, "off", lambda _: nullcontext())
    monkeypatch.setattr(call_module, "paused", nullcontext)
    sample(accelerated(flux, site="hidden"))
    assert max(alive for _, alive in compiled.regions) > max(plain)


def test_a_host_without_one_needs_nothing(flux, monkeypatch):
    monkeypatch.delattr(compiler.args, compiler.SWITCH, raising=False)
    monkeypatch.setattr(compiler, "prefetch", None)
    sample(accelerated(flux))
    assert not hasattr(compiler.args, compiler.SWITCH)
