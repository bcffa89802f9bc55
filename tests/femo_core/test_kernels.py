"""The kernels, eager and fused, against float64.

Without a GPU, Triton's interpreter runs the fused kernels on the CPU: in a process of its own, which it needs.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from no_read_back import NoReadBack

from femo_core import FeMo, TaylorSeer, kernels
from femo_core.kernels import eager

HAS_GPU = torch.cuda.is_available()
HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = "TRITON_INTERPRET" in os.environ
fused = None
if HAS_TRITON and (HAS_GPU or INTERPRETED):
    from femo_core.kernels import fused

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's numpy, of ∞ − ∞

ENGINES = ["eager", "parts", *(["fused"] if fused else [])]
DTYPES = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SHAPES = [(1, 5, 8), (3, 7, 20), (2, 1, 1500), (2, 3), (4, 1)]


@pytest.fixture(params=ENGINES)
def engine_name(request):
    """What does the arithmetic: PyTorch on the whole, PyTorch part by part, or the fused kernels."""
    return request.param


@pytest.fixture
def engine(engine_name, monkeypatch):
    if engine_name == "parts":
        monkeypatch.setattr(eager, "PART_OF_A_THREAD", 3)
        monkeypatch.setattr(eager, "PART_OF_A_GPU", 3)
    if not (engine_name == "fused" and HAS_GPU):
        monkeypatch.setattr(kernels, "_fused", lambda *_: fused if engine_name == "fused" else None)
    return kernels


@pytest.fixture
def dtypes(engine_name):
    """And half a unit in the last place of each."""
    if engine_name != "fused":
        return DTYPES
    units = {dtype: unit for dtype, unit in DTYPES.items() if dtype != torch.float64}
    return units if HAS_GPU else {**units, torch.bfloat16: 2**-7}  # the interpreter cuts off where a GPU rounds


@pytest.fixture
def where():
    return torch.device("cuda" if HAS_GPU else "cpu")


def numbers(*shape, dtype=torch.float32, device="cpu", seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


def weighted(weights, tensors):
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for weight, tensor in zip(weights, tensors, strict=True):
        if isinstance(weight, torch.Tensor):
            weight = weight.double().view(-1, *(1,) * (tensor.ndim - 1))
        total += weight * tensor.double()
    return total


def assert_near(found, right, unit, scale=1.0):
    """Rounded once: half a unit of the result's last place, and what float32 sums add to it."""
    bound = unit * right.abs() + scale * min(unit, 1e-6)
    assert ((found.double() - right).abs() <= bound).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_sums_are_rounded_once(engine, count, per_sample, shape, where, dtypes):
    for dtype, unit in dtypes.items():
        stack = numbers(count, *shape, dtype=dtype, device=where)
        weights = [1.0, -0.7, 2.5, 0.0, 3.0, 0.1, -1.2, 0.3][:count]
        if per_sample:
            weights[-1] = numbers(shape[0], device=where, seed=1)
        found = engine.combine(weights, stack)
        assert found.dtype == dtype
        assert_near(found, weighted(weights, stack), unit, 30)
        out = torch.full_like(stack[0], 9.0)
        engine.combine(weights, stack, out)
        assert torch.equal(out, found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("known", [0, 1, 2, 4])
def test_updates_are_rounded_once(engine, known, shape, where, dtypes):
    for dtype, unit in dtypes.items():
        stack = numbers(known, *shape, dtype=dtype, device=where) if known else None
        feature = numbers(*shape, dtype=dtype, device=where, seed=2)
        rows = [[*[0.0] * known, 1.0], [*[0.3 - i for i in range(known)], numbers(shape[0], device=where, seed=3)]]
        found = engine.transform(rows, stack, feature)
        assert found.is_contiguous()
        for row, result in zip(rows, found, strict=True):
            right = weighted(row, [*(() if stack is None else stack), feature])
            assert_near(result, right, unit, 30)
        assert torch.equal(found[0], feature)


@pytest.mark.parametrize("rows", [
    [[0.0, 0.0, 0.0, 1.0], [-0.25, 0.0, 0.0, 0.25], [-0.2, 0.3, 0.7, 0.2]], [[0.5, 0.0, 0.0, 0.5]] * 3])
def test_an_update_in_place_is_the_same(engine, rows, where, dtypes):
    for dtype in dtypes:
        stack, feature = numbers(3, 2, 7, 20, dtype=dtype, device=where), numbers(2, 7, 20, dtype=dtype, device=where)
        fresh = engine.transform(rows, stack, feature)
        found = engine.transform(rows, stack, feature, reuse=True)
        assert found.data_ptr() == stack.data_ptr()
        assert torch.equal(found, fresh)


def test_an_update_from_a_feature_that_is_not_contiguous(where, monkeypatch):
    monkeypatch.setattr(eager, "PART_OF_A_THREAD", 3)
    stack, feature = numbers(2, 3, 8, 5, device=where), numbers(3, 5, 8, device=where).transpose(1, 2)
    found = kernels.transform([[1.0, -2.0, 0.5]], stack, feature)
    torch.testing.assert_close(found[0], stack[0] - 2 * stack[1] + 0.5 * feature)


@pytest.mark.parametrize("shared", [False, True])
def test_gated_sums(engine, shared, where, dtypes):
    for dtype, unit in dtypes.items():
        state, stack = numbers(3, 7, 20, dtype=dtype, device=where), numbers(2, 3, 7, 20, dtype=dtype, device=where)
        gate = numbers(3, 1, 60, dtype=dtype, device=where, seed=4)[..., 20:40]  # as a modulation gives it: a part
        gate = gate[:1].expand(3, -1, -1) if shared else gate
        weights = [1.0, numbers(3, device=where, seed=5)]
        found = engine.add_gated(state, gate, weights, stack)
        addend = gate.double() * weighted(weights, stack)
        right = state.double() + addend
        assert found.dtype == dtype
        bound = unit * (right.abs() + 1.01 * addend.abs()) + 30 * min(unit, 1e-6)  # the forecast is rounded, too
        assert ((found.double() - right).abs() <= bound).all()


def test_a_gated_sum_has_the_dtype_that_its_terms_add_up_to(where):
    state, stack = numbers(1, 2, 4, device=where), numbers(1, 1, 2, 4, dtype=torch.bfloat16, device=where)
    found = kernels.add_gated(state, stack[0, :, :1], [2.0], stack)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, state + stack[0, :, :1].float() * 2 * stack[0].float())


def test_no_gradient_passes_through(engine, where):
    state, stack = numbers(1, 2, 4, device=where).requires_grad_(), numbers(2, 1, 2, 4, device=where)
    feature = numbers(1, 2, 4, device=where, seed=8).requires_grad_()
    results = (engine.add_gated(state, state[:, :1], [1.0, 2.0], stack),
               engine.transform([[1.0, 0.0, 2.0]], stack, feature),
               engine.compare([1.0, 2.0], stack, feature), engine.is_nonfinite(feature))
    assert not any(result.requires_grad for result in results)


@pytest.mark.parametrize("shape", SHAPES)
def test_comparisons(engine, shape, where, dtypes):
    for dtype in dtypes:
        stack, feature = numbers(2, *shape, dtype=dtype, device=where), numbers(*shape, dtype=dtype, device=where)
        weights = [0.5, numbers(shape[0], device=where, seed=6)]
        forecast = weighted(weights, stack)
        right = torch.stack([x.flatten(1).norm(dim=1) if x.ndim > 1 else x.abs()
                             for x in (feature.double(), forecast, forecast - feature.double())])
        torch.testing.assert_close(engine.compare(weights, stack, feature).double(), right, rtol=1e-5, atol=1e-6)


def test_a_forecast_that_is_the_feature_compares_as_equal(engine, where):
    """Adapted-FeMo's β must stay where it is then (Eq. 13, S = 0)."""
    feature = numbers(3, 1000, device=where)
    of_feature, of_forecast, of_error = engine.compare([1.0, 0.0], torch.stack([feature, feature + 1]), feature)
    assert torch.equal(of_feature, of_forecast)
    assert not of_error.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_seen_wherever_they_are(engine, value, where):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        feature = numbers(2, 1500, dtype=dtype, device=where)
        assert not engine.is_nonfinite(feature)
        for index in (0, 1023, 1499):
            broken = feature.clone()
            broken[1, index] = value
            assert engine.is_nonfinite(broken)
    assert not engine.is_nonfinite(torch.zeros(0, 3, device=where))


def test_a_weight_of_zero_leaves_its_tensor_out(engine, where):
    stack = torch.stack([torch.ones(2, 3, device=where), torch.full((2, 3), float("inf"), device=where)])
    assert torch.equal(engine.combine([2.0, 0.0], stack), torch.full((2, 3), 2.0, device=where))
    assert not engine.combine([0.0, 0.0], stack).any()


def test_float16_stays_finite(engine, where):
    stack = torch.full((2, 1, 4), 60000.0, dtype=torch.float16, device=where)
    assert torch.equal(engine.combine([1.0, 1.0], stack), torch.full((1, 4), 65504.0, device=where).half())
    assert torch.equal(engine.combine([-1.0, -1.0], stack), torch.full((1, 4), -65504.0, device=where).half())


def test_half_precision_accumulates_in_float32(engine, where):
    # 256 + 1 is not a bfloat16; 256 + 1 − 256 must be 1 all the same.
    stack = torch.tensor([256.0, 1.0, -256.0], dtype=torch.bfloat16, device=where).view(3, 1, 1)
    assert engine.combine([1.0, 1.0, 1.0], stack).item() == 1.0


@pytest.mark.parametrize("kernel", ["combine", "transform", "add_gated", "compare"])
def test_nothing_is_read_back_and_nothing_but_the_result_is_as_large(kernel, where):
    """Of what a kernel allocates in passing, no tensor is larger than a part."""
    state, stack = numbers(1, 4000, 1024, device=where).bfloat16(), numbers(2, 1, 4000, 1024, device=where).bfloat16()
    calls = {
        "combine": lambda: kernels.combine([1.0, 0.5], stack),
        "transform": lambda: kernels.transform([[0.0, 0.0, 1.0], [0.2, 0.3, 0.5]], stack, state),
        "add_gated": lambda: kernels.add_gated(state, state[:, :1], [1.0, 0.5], stack),
        "compare": lambda: kernels.compare([1.0, 0.5], stack, state),
    }
    results = {"combine": state.nbytes, "transform": stack.nbytes, "add_gated": state.nbytes, "compare": 0}

    class Sizes(NoReadBack):
        made = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = super().__torch_dispatch__(func, types, args, kwargs)
            if isinstance(result, torch.Tensor) and result._base is None and "empty" in str(func):
                self.made = (*self.made, result.nbytes)
            return result

    with Sizes() as sizes:
        calls[kernel]()
    part = 4 * max(eager.PART_OF_A_THREAD * torch.get_num_threads(), eager.PART_OF_A_GPU * HAS_GPU)
    assert sum(size for size in sizes.made if size > part) == results[kernel]


# The fused kernels by themselves

@pytest.mark.skipif(fused is None, reason="in the interpreter's process")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_prove_themselves(dtype, where):
    fused.prove(where, dtype)


@pytest.mark.skipif(fused is None, reason="in the interpreter's process")
def test_kernels_that_are_wrong_or_fail_are_not_used(where, monkeypatch, caplog):
    monkeypatch.setattr(fused, "compare", lambda *_: torch.zeros(3, 2, device=where))
    assert not fused.works_on.__wrapped__(where, torch.float32)
    assert "forecasts on" in caplog.text
    monkeypatch.undo()
    assert fused.works_on.__wrapped__(where, torch.float32)
    monkeypatch.setenv("FEMO_EAGER", "1")
    assert not fused.works_on.__wrapped__(where, torch.float32)


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
@pytest.mark.skipif(HAS_GPU or INTERPRETED, reason="this process runs them")
@pytest.mark.parametrize(("command", "environment"), [
    (["-m", "pytest", "-q", "-k", "fused or prove or wrong", __file__], {"TRITON_INTERPRET": "1"}),
    ([str(Path(__file__).with_name("compile_kernels.py"))], {}),
], ids=["interpreted", "compiled for NVIDIA's GPUs"])
def test_fused_kernels_without_a_gpu(command, environment):
    found = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False,
                           env={**os.environ, **environment})
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.skipif(not HAS_GPU, reason="a GPU's graphs")
@pytest.mark.parametrize("kind", [
    TaylorSeer(2), FeMo(1, gamma=0.01), FeMo(1, beta=0.3, adaptation="least_squares")])
def test_forecasts_can_be_captured_in_a_cuda_graph(kind, where):
    state = kind.init()
    for step in (0, 1, 2, 6):
        state = kind.update(state, numbers(2, 64, 32, device=where, seed=step), step)
    kind.predict(state, 8)  # what is found out once is known then
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = kind.predict(state, 8)
    state.stack.mul_(2.0)
    graph.replay()
    torch.testing.assert_close(captured, kind.predict(state, 8))
