"""FLUX.1-dev on several GPUs: what is counted. femo_core/integrations/test_parallel.py times several processes."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own


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
