"""Caches within models, and what other nodes remember from one evaluation for the next."""

from __future__ import annotations

import pytest
from comfy.patcher_extension import CallbacksMP
from comfy_host import accelerated, femo_core
from test_flux import sample

FULL = femo_core.Schedule(3, 3).full_steps(12)


@pytest.mark.parametrize(("key", "name"), [("k6_magcache", "MagCache"), ("hy3_spectrum", "Spectrum")])
def test_a_model_with_a_cache_of_its_own_is_left_alone_and_it_is_named(flux, key, name, reports):
    model = flux.clone()
    model.model_options["transformer_options"][key] = object()
    sample(accelerated(model))
    assert reports[0].predicted_steps == ()
    assert name in reports[0].reason
    assert len(reports[0].warnings) == 1


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_attention_that_goes_by_the_evaluation_before_starts_afresh_after_forecasts(flux, cfg, reports):
    """Once for each full step that follows a forecast one; and at the end, as without us."""
    model, cleared = flux.clone(), []
    model.add_callback_with_key(CallbacksMP.ON_CLEANUP, "block_sparse_attention", cleared.append)
    sample(model, cfg=cfg)
    as_ever = len(cleared)
    cleared.clear()
    sample(accelerated(model), cfg=cfg)
    assert reports[0].full_steps == FULL
    assert len(cleared) - as_ever == len([step for step in FULL if step and step - 1 not in FULL])
    assert "Block Sparse Attention" in reports[0].warnings[0]
    assert len(reports[0].warnings) == 1
    cleared.clear()
    sample(accelerated(model, interval=1), cfg=cfg)
    assert len(cleared) == as_ever
    assert reports[1].warnings == ()
