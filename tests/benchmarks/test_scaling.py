"""FLUX.1-dev on several GPUs: what is counted, and the timing of several processes."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own

SMALL = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
         "num_attention_heads": 4, "joint_attention_dim": 32, "pooled_projection_dim": 16, "axes_dims_rope": (4, 6, 6)}


@pytest.fixture(scope="module")
def cost():
    from benchmarks.speed import scaling

    return scaling.costs(scaling.flux(), 1024)


def test_a_step_of_flux_takes_the_papers_flops(cost):
    assert cost[0]["full"].flops(1) == pytest.approx(74.39e12, rel=1e-3)
    assert cost[0]["full"].flops(4) == pytest.approx(74.39e12 / 4, rel=1e-3)


def test_a_predicted_step_takes_next_to_nothing(cost):
    costs, _ = cost
    assert 0.0 == costs["output"].flops(1) < costs["hidden"].flops(1) < costs["module"].flops(1)
    assert costs["module"].flops(1) < 1e-3 * costs["full"].flops(1)
    assert costs["module"].sent(4) == costs["hidden"].sent(4) < 1e-3 * costs["full"].sent(4)
    assert costs["output"].sent(4) == 0.0


def test_the_cache_at_order_one(cost):
    """Two tensors of 4096 tokens; at site module of 38 modules for the image, and of 38 more with 512 text tokens."""
    _, cache = cost
    assert cache["hidden"] == 2 * 4096 * 3072 * 2
    assert cache["output"] == 2 * 4096 * 64 * 2
    assert cache["module"] == 2 * 3072 * 2 * (38 * 4096 + 38 * (4096 + 512))


def test_one_gpu_sends_nothing(cost):
    assert all(each.sent(1) == 0.0 for each in cost[0].values())


def test_several_processes_are_timed():
    """On the CPU, in small."""
    from benchmarks.speed.scaling import SITES, measured

    found = measured(2, "cpu", (64,), SMALL, text=8)
    assert set(found) == {(64, site) for site in SITES}
    assert all(full > 0 < predicted for full, predicted in found.values())
