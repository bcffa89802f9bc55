"""Random workflows: never an exception of ours, a NaN, a difference at interval 1, anything left behind.

`make soak` draws hundreds of them; FEMO_SOAK_FROM=n starts at the n-th, to see one again.
"""

from __future__ import annotations

import dataclasses
import os
import random

import pytest
import torch
from comfy_host import Breaks, accelerated, attach_module, comfy, femo_core, first_parts, leftovers, tensor_bytes
from small_images import IMAGES
from small_models import available, build, possible, sample
from small_videos import VIDEOS

MODELS = {small.name: small for small in (*IMAGES, *VIDEOS) if available(small)}
COUNT, FIRST = int(os.environ.get("FEMO_SOAK", "6")), int(os.environ.get("FEMO_SOAK_FROM", "0"))
Interrupted = comfy.model_management.InterruptProcessingException


class Workflow:
    """A random one, always the same for a seed."""

    def __init__(self, seed: int):
        draw = random.Random(seed)
        self.small = MODELS[draw.choice(sorted(MODELS))]
        self.sampler = draw.choice([
            name for name in comfy.samplers.KSampler.SAMPLERS
            if "cfg_pp" not in name or self.small.guided is not False])  # they ask for guidance whatever cfg is
        self.scheduler = draw.choice(comfy.samplers.KSampler.SCHEDULERS)
        self.steps, self.denoise = draw.randint(1, 14), draw.choice((1.0, 1.0, 0.6, 0.3))
        self.cfg, self.batch, self.seed = draw.choice((1.0, 3.0)), draw.choice((1, 1, 2)), seed
        self.cfg, self.batch = possible(self.small, self.cfg, self.batch)
        order, beta = draw.randint(0, 3), draw.uniform(-0.5, 0.9)
        self.predictor = draw.choice((
            femo_core.TaylorSeer(order),
            femo_core.FeMo(order, beta=beta, momentum_start=draw.choice(("zero", "feature"))),
            femo_core.FeMo(order, beta=beta, gamma=0.05, beta_min=beta - 0.04, beta_max=beta + 0.04),
            femo_core.FeMo(order, beta=beta, beta_min=-0.6, beta_max=0.9, adaptation="least_squares",
                           momentum_start=draw.choice(("zero", "feature")))))
        self.schedule = femo_core.Schedule(
            draw.randint(2, 8), draw.randint(1, 4), draw.randint(0, 2), draw.choice((0, 0, 1, 3)))
        self.site, self.coordinate = draw.choice(("hidden", "module", "output")), draw.choice(("steps", "sigmas"))
        self.cache_device, self.wider = draw.choice(("gpu", "cpu")), draw.choice((False, True))
        self.interrupt_at = draw.choice((None, None, draw.randint(1, 12)))
        self.tolerance = draw.choice((0.0, 0.0, 0.02, 0.2))

    def __repr__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items())

    def accelerated(self, model):
        return attach_module.attach(model, attach_module.CacheConfig(
            self.predictor, self.schedule, site=self.site, coordinate=self.coordinate,
            cache_device=self.cache_device, tolerance=self.tolerance))

    def plain(self, model):
        """Unaccelerated; at twice the width where that was drawn and the model itself can do it."""
        usual = self.small
        if self.wider:
            self.small = dataclasses.replace(usual, latent=(*usual.latent[:-1], 2 * usual.latent[-1]))
            try:
                return self.sample(model)
            except (RuntimeError, ValueError, IndexError):  # what it is conditioned on has the usual size
                self.small = usual
        return self.sample(model)

    def sample(self, model):
        return sample(self.small, model, steps=self.steps, cfg=self.cfg, batch=self.batch, sampler=self.sampler,
                      scheduler=self.scheduler, denoise=self.denoise, seed=self.seed)


def same(one, other):
    """Bit for bit; some samplers give NaN of their own in a single step."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def first_part(model):
    network = model.model.diffusion_model
    return next(iter(first_parts(network).values()), network)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_random_workflow(seed):
    work = Workflow(seed)
    print(work)
    model = build(work.small)
    plain = work.plain(model)
    assert same(work.sample(accelerated(model, interval=1, site=work.site)), plain)
    ours = work.accelerated(model)
    before = tensor_bytes()
    if work.interrupt_at:
        try:
            with Breaks(first_part(model), Interrupted(), work.interrupt_at):
                work.sample(ours)
        except Interrupted:
            pass
        assert leftovers(model) == []
        assert tensor_bytes() == before
    result = work.sample(ours)
    assert leftovers(model) == []
    if torch.isfinite(plain).all():
        assert torch.isfinite(result).all()
    assert same(work.sample(ours), result)
    del result
    assert tensor_bytes() == before
