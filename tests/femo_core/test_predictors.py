from __future__ import annotations

import numpy as np
import pytest
import torch
from no_read_back import NoReadBack
from reference import Reference

from femo_core import FeMo, ScaledTaylor, StateError, TaylorSeer

SHAPE = (3, 5, 7)
EVEN = (1, 2, 8, 14, 20, 26)
UNEVEN = (0, 1, 2.5, 7, 8, 15.25, 17)

PREDICTORS = {
    "taylor": lambda order: (TaylorSeer(order), Reference(order)),
    "femo": lambda order: (FeMo(order, beta=0.325), Reference(order, 0.325)),
    "femo negative": lambda order: (FeMo(order, beta=-0.4), Reference(order, -0.4)),
    "femo from feature": lambda order: (
        FeMo(order, beta=0.325, momentum_start="feature"), Reference(order, 0.325, start="feature")),
    "adapted": lambda order: (
        FeMo(order, beta=0.3, gamma=0.05, beta_min=0.2, beta_max=0.4), Reference(order, 0.3, 0.05, (0.2, 0.4))),
    "adapted from feature": lambda order: (
        FeMo(order, beta=-0.02, gamma=0.01, beta_min=-0.04, beta_max=0.0, momentum_start="feature"),
        Reference(order, -0.02, 0.01, (-0.04, 0.0), "feature")),
    "adapted by least squares": lambda order: (
        FeMo(order, beta=0.1, beta_min=-0.6, beta_max=0.9, adaptation="least_squares"),
        Reference(order, 0.1, bounds=(-0.6, 0.9), fits=True)),
    "adapted by least squares from feature": lambda order: (
        FeMo(order, beta=0.1, beta_min=-0.6, beta_max=0.9, momentum_start="feature", adaptation="least_squares"),
        Reference(order, 0.1, bounds=(-0.6, 0.9), start="feature", fits=True)),
}


def random_features(steps, seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return {step: rng.standard_normal(shape) for step in steps}


def run(predictor, features, device="cpu", dtype=torch.float32):
    state = predictor.init()
    for step, feature in features.items():
        state = predictor.update(state, torch.tensor(feature, dtype=dtype, device=device), step)
    return state


def relative(a: torch.Tensor, b: np.ndarray) -> float:
    return float(np.abs(a.double().cpu().numpy() - b).max() / np.abs(b).max())


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("steps", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("kind", PREDICTORS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_float64_reference(kind, steps, order, seed, device):
    predictor, reference = PREDICTORS[kind](order)
    tolerance = 1e-5 if "least squares" in kind else 1e-6  # β is found from differences of norms in float32
    state = predictor.init()
    for step, feature in random_features(steps, seed).items():
        rounded = torch.tensor(feature, dtype=torch.float32, device=device)
        state = predictor.update(state, rounded, step)
        reference.update(rounded.double().cpu().numpy(), step)
        for ahead in (0, 0.5, 1, 5):
            assert relative(predictor.predict(state, step + ahead), reference.predict(step + ahead)) < tolerance


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("start", ["zero", "feature"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_beta_zero_is_taylorseer_bit_for_bit(order, start, dtype, device):
    features = random_features(UNEVEN)
    taylor, femo = TaylorSeer(order), FeMo(order, beta=0.0, momentum_start=start)
    one, other = run(taylor, features, device, dtype), run(femo, features, device, dtype)
    for ahead in (0, 1, 2.5, 7):
        assert torch.equal(taylor.predict(one, 17 + ahead), femo.predict(other, 17 + ahead))


@pytest.mark.parametrize("predictor", [TaylorSeer(0), FeMo(0, beta=0.5)])
def test_order_zero_is_reuse(predictor, device):
    features = random_features(EVEN)
    state = run(predictor, features, device)
    assert torch.equal(predictor.predict(state, 31), torch.tensor(features[26], dtype=torch.float32, device=device))


@pytest.mark.parametrize("predictor", [
    TaylorSeer(1), FeMo(1, beta=0.6), FeMo(1, beta=-0.6), FeMo(1, beta=0.3, gamma=0.1)])
def test_order_one_is_exact_on_straight_lines(predictor, device):
    rng = np.random.default_rng(1)
    offset, slope = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    state = run(predictor, {step: offset + slope * step for step in UNEVEN}, device, torch.float64)
    assert relative(predictor.predict(state, 23.5), offset + slope * 23.5) < 1e-12


def test_order_two_is_exact_on_an_even_grid_up_to_its_own_finite_difference():
    # f(k) = k² on 0, 2, 4: d1 = (16 − 4) / 2 = 6, d2 = (6 − 2) / 2 = 2; f̂(5) = 16 + 6 + 1 = 23.
    predictor = TaylorSeer(2)
    state = run(predictor, {k: np.full((1, 1), float(k * k)) for k in (0, 2, 4)})
    assert predictor.predict(state, 5).item() == 23.0


def test_momentum_by_hand():
    # f = 0, 1, 4 at 0, 1, 2, β = ½: M = ½·1 = ½, then ½·½ + ½·3 = 1.75; M̂ = 1.75 / (1 − ¼) = 7/3; f̂(3) = 4 + 7/3.
    predictor = FeMo(1, beta=0.5)
    state = run(predictor, {k: np.full((1, 1), float(k * k)) for k in (0, 1, 2)})
    assert predictor.predict(state, 3).item() == pytest.approx(4 + 7 / 3)
    # From the feature: M = f(0) = 0, then ½·0 + ½·1, then as above, uncorrected: f̂(3) = 4 + 1.75.
    predictor = FeMo(1, beta=0.5, momentum_start="feature")
    state = run(predictor, {k: np.full((1, 1), float(k * k)) for k in (0, 1, 2)})
    assert predictor.predict(state, 3).item() == pytest.approx(5.75)


@pytest.mark.parametrize("start", ["zero", "feature"])
def test_a_forecast_before_the_first_derivative_is_the_feature_alone(start):
    predictor, feature = FeMo(2, momentum_start=start), torch.randn(SHAPE)
    assert torch.equal(predictor.predict(predictor.update(predictor.init(), feature, 4), 9), feature)


@pytest.mark.parametrize(("predictor", "buffers"), [
    (TaylorSeer(0), 1), (TaylorSeer(1), 2), (TaylorSeer(4), 5), (FeMo(0), 1), (FeMo(1), 2), (FeMo(2), 4),
    (FeMo(0, adaptation="least_squares"), 1), (FeMo(1, adaptation="least_squares"), 3),
    (FeMo(2, adaptation="least_squares"), 5)])
def test_memory_is_what_the_order_promises(predictor, buffers):
    state = run(predictor, random_features(range(8)))
    assert len(state.buffers) == buffers
    assert state.nbytes == buffers * 4 * int(np.prod(SHAPE))
    assert len(state.buffers) == predictor.buffer_count


def test_samples_of_one_batch_adapt_their_beta_independently(device):
    predictor = FeMo(1, beta=0.3, gamma=0.01)
    # Sample 0 grows faster than its forecast, sample 1 slower, sample 2 goes exactly as forecast.
    state = predictor.init()
    for step, values in enumerate([(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 2.5, 3.0)]):
        state = predictor.update(state, torch.tensor(values, device=device)[:, None].expand(3, 4), step)
    assert state.beta.tolist() == pytest.approx([0.31, 0.29, 0.3])
    alone = predictor.init()
    for step, value in enumerate([1.0, 2.0, 4.0]):
        alone = predictor.update(alone, torch.full((1, 4), value, device=device), step)
    assert torch.equal(predictor.predict(alone, 5)[0], predictor.predict(state, 5)[0])


def curved(samples, steps, bends, device="cpu"):
    """By step: (samples, 4), each sample a parabola that bends by itself."""
    return {step: (torch.arange(1.0, 5.0) + step * torch.tensor([1.0, -1.0, 0.5, 2.0])
                   + step**2 * torch.tensor(bends)[:, None]).to(device)[:samples] for step in steps}


def fitting(**changes):
    settings = {"beta": 0.1, "beta_min": -0.9, "beta_max": 0.9, "adaptation": "least_squares"}
    return FeMo(1, **settings | changes)


def test_the_fitted_beta_is_what_would_have_forecast_best(device):
    """By trying: of all first β, the one that is found forecasts what came with the least error."""
    features = [torch.randn(2, 50, generator=torch.Generator().manual_seed(step)).to(device) for step in range(4)]
    steps = (0, 2, 5, 9)

    def after_three(beta):
        predictor = fitting(beta=beta, beta_min=-0.99, beta_max=0.99)
        state = predictor.init()
        for step, feature in zip(steps[:3], features, strict=False):
            state = predictor.update(state, feature, step)
        return predictor, state

    tried = [index / 100 for index in range(-98, 99)]
    errors = torch.stack([
        predictor.compare(state, features[3], steps[3])[2] for predictor, state in map(after_three, tried)])
    predictor, state = after_three(0.1)
    found = predictor.update(state, features[3], steps[3]).beta
    torch.testing.assert_close(found, torch.tensor(tried, device=device)[errors.argmin(0)], atol=0.006, rtol=0)


def test_samples_of_one_batch_are_fitted_independently(device):
    predictor, steps = fitting(), (0, 1, 2, 6, 10, 14)
    together = curved(3, steps, [0.1, 0.0, -0.3], device)
    noise = {step: torch.randn(3, 4, generator=torch.Generator().manual_seed(step)).to(device) for step in steps}
    state = predictor.init()
    for step in steps:
        state = predictor.update(state, together[step] + noise[step], step)
    assert len(set(state.beta.tolist())) == 3
    for sample in range(3):
        alone = predictor.init()
        for step in steps:
            alone = predictor.update(alone, (together[step] + noise[step])[sample : sample + 1], step)
        torch.testing.assert_close(predictor.predict(alone, 17)[0], predictor.predict(state, 17)[sample])


def test_a_fitted_beta_leans_ahead_on_curves_and_smooths_noise(device):
    steps = range(0, 60, 4)
    bent = run(fitting(), {step: np.full((1, 9), 0.01 * step**2) for step in steps}, device)
    rng = np.random.default_rng(0)
    noisy = run(fitting(), {step: step + 20 * rng.standard_normal((1, 999)) for step in steps}, device)
    assert bent.beta.item() < -0.3
    assert noisy.beta.item() > 0.3


@pytest.mark.parametrize("bounds", [(-0.05, 0.15), (0.1, 0.1)])
def test_a_fitted_beta_never_leaves_its_bounds(bounds, device):
    predictor = fitting(beta_min=bounds[0], beta_max=bounds[1])
    low, high = torch.tensor(bounds)
    state = predictor.init()
    for step, feature in random_features(range(0, 40, 3)).items():
        state = predictor.update(state, torch.tensor(feature, dtype=torch.float32, device=device), step)
        if isinstance(state.beta, torch.Tensor):
            assert ((state.beta.cpu() >= low) & (state.beta.cpu() <= high)).all()


@pytest.mark.parametrize("feature", [np.ones((1, 2)), np.zeros((1, 2))])
def test_where_all_beta_forecast_alike_it_stays(feature, device):
    state = run(fitting(), {step: feature * step for step in range(6)}, device)
    assert state.beta.tolist() == pytest.approx([0.1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_does_not_stick_to_a_fitted_beta(bad, device):
    walk = np.random.default_rng(0).standard_normal((10, 2, 9)).cumsum(0).cumsum(0)
    features = dict(zip(range(0, 40, 4), walk, strict=True))
    before = run(fitting(), {step: features[step] for step in range(0, 24, 4)}, device)
    whole = run(fitting(), features, device)
    features[24][0, 3] = bad
    state = run(fitting(), features, device)
    assert state.beta[0] == before.beta[0]
    assert state.beta[1] == whole.beta[1] != before.beta[1]  # the sample beside it


@pytest.mark.parametrize("gamma", [0.01, 0.2, 5.0])
def test_beta_never_leaves_its_bounds(gamma, device):
    predictor = FeMo(1, beta=0.3, gamma=gamma, beta_min=0.25, beta_max=0.32)
    state, moved = predictor.init(), set()
    for step in range(40):  # twenty steps of growth beyond the forecast, then twenty below it
        feature = torch.full((2, 3), float(step**2 if step < 20 else 800 - (40 - step) ** 2), device=device)
        state = predictor.update(state, feature, step)
        if isinstance(state.beta, torch.Tensor):
            low, high = torch.tensor([0.25, 0.32])  # in float32, as beta is
            assert ((state.beta.cpu() >= low) & (state.beta.cpu() <= high)).all()
            moved |= set(state.beta.tolist())
    assert {round(beta, 4) for beta in moved} >= {0.25, 0.32}


def test_a_nan_does_not_stick_to_beta(device):
    predictor = FeMo(1, beta=0.3, gamma=0.01)
    state = run(predictor, {0: np.ones((1, 2)), 1: np.ones((1, 2)), 2: np.full((1, 2), np.nan)}, device)
    assert state.beta.tolist() == pytest.approx([0.3])


# An adapted beta stays as the first evaluation of a step decided it, so only its first two updates compare.
REPEATS = [(kind, n) for kind in PREDICTORS for n in range(1, 6) if "adapted" not in kind or n < 3]


@pytest.mark.parametrize(("kind", "repeat"), REPEATS)
def test_a_repeated_coordinate_replaces_the_last_anchor(kind, repeat, device):
    predictor, _ = PREDICTORS[kind](2)
    features = list(random_features(EVEN).items())[:repeat]
    first = torch.tensor(np.full(SHAPE, 3.0), dtype=torch.float64, device=device)
    state = run(predictor, dict(features[:-1]), device, torch.float64)
    twice = predictor.update(state, first, features[-1][0])
    twice = predictor.update(twice, torch.tensor(features[-1][1], device=device), features[-1][0])
    once = run(predictor, dict(features), device, torch.float64)
    assert twice.updates == once.updates
    torch.testing.assert_close(predictor.predict(twice, 30), predictor.predict(once, 30), rtol=1e-12, atol=1e-12)


# How far a forecast in half precision is from the float64 one, over the largest value: features bf16/fp16 in and out,
# N = 8, a smooth curve. Arithmetic is float32; the buffers are rounded to the feature's dtype, and so is the result.
# From the same rounded features it is one rounding. From the exact ones it is more, at any precision of the arithmetic:
# a derivative across one step, as the warm-up gives it, enlarges what rounding took from the features up to N-fold.
@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", ["taylor", "femo", "adapted", "adapted by least squares"])
def test_half_precision_against_float64(kind, order, dtype, unit, device):
    predictor, rounded = PREDICTORS[kind](order)
    _, exact = PREDICTORS[kind](order)
    rng = np.random.default_rng(2)
    phase, frequency = rng.uniform(0, 6, SHAPE), rng.uniform(0.5, 2.0, SHAPE)
    state, of_arithmetic, in_all = predictor.init(), 0.0, {}
    for step in (1, 2, 10, 18, 26, 34):
        truth = np.sin(phase + frequency * step / 50)
        feature = torch.tensor(truth, device=device).to(dtype)
        state = predictor.update(state, feature, step)
        rounded.update(feature.double().cpu().numpy(), step)
        exact.update(truth, step)
        for ahead in range(1, 8):
            forecast = predictor.predict(state, step + ahead)
            assert forecast.dtype == dtype
            of_arithmetic = max(of_arithmetic, relative(forecast, rounded.predict(step + ahead)))
            in_all[step] = max(in_all.get(step, 0.0), relative(forecast, exact.predict(step + ahead)))
    after_warmup = max(error for step, error in in_all.items() if step > 10)
    print(f"{kind} O={order} {dtype}: arithmetic {of_arithmetic:.2e}, in all {max(in_all.values()):.2e} at worst and "
          f"{after_warmup:.2e} once the warm-up is behind, of the largest value")
    assert of_arithmetic < 1.25 * unit
    assert max(in_all.values()) < 10 * unit
    assert after_warmup < 5 * unit


def test_a_float16_forecast_stays_finite(device):
    predictor = TaylorSeer(1)
    state = run(predictor, {0: np.full((1, 2), 60000.0), 1: np.full((1, 2), 62000.0)}, device, torch.float16)
    assert predictor.predict(state, 9).tolist() == [[65504.0, 65504.0]]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("kind", PREDICTORS)
@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # a GPU has fused kernels for the second only
def test_nothing_is_read_back_from_the_device(kind, order, dtype, device):
    predictor, _ = PREDICTORS[kind](order)
    features = {s: torch.tensor(f, device=device, dtype=dtype) for s, f in random_features(UNEVEN).items()}
    if device.type == "cuda":
        run(predictor, dict(random_features(UNEVEN)), device, dtype)  # what is found out once is known then
        torch.cuda.set_sync_debug_mode("error")
    try:
        with NoReadBack():
            state = predictor.init()
            for step, feature in features.items():
                state = predictor.update(state, feature, step)
                state = predictor.update(state, feature, step)
                predictor.predict(state, step + 3)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def test_the_read_back_check_can_fail():
    with pytest.raises(AssertionError, match="read back"), NoReadBack():
        torch.ones(1).item()


def storages(*tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@pytest.mark.parametrize("kind", PREDICTORS)
@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_reused_buffers_hold_the_same(kind, order, dtype, device):
    predictor, _ = PREDICTORS[kind](order)
    fresh, reused = predictor.init(), predictor.init()
    for step in (0, 1, 2, 2, 5, 9, 14, 20):
        feature = torch.randn(SHAPE, device=device, dtype=dtype)
        before = storages(*reused.buffers)
        fresh, reused = predictor.update(fresh, feature, step), predictor.update(reused, feature, step, reuse=True)
        for one, other in zip(fresh.buffers, reused.buffers, strict=True):
            assert torch.equal(one, other)
    assert storages(*reused.buffers) == before


@pytest.mark.parametrize("kind", PREDICTORS)
@pytest.mark.parametrize("order", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_callers_tensor_is_neither_kept_nor_changed(kind, order, dtype, device):
    predictor, _ = PREDICTORS[kind](order)
    state = predictor.init()
    for step in (0, 1, 2, 2, 5):
        feature = torch.randn(SHAPE, device=device, dtype=dtype)
        before = feature.clone()
        old, state = state, predictor.update(state, feature, step)
        forecast = predictor.predict(state, step)
        again = predictor.predict(state, step)
        assert torch.equal(feature, before)
        assert not storages(feature) & storages(*state.buffers)
        assert not storages(*old.buffers) & storages(*state.buffers)
        assert not storages(forecast) & storages(again, feature, *state.buffers)


def test_a_strided_or_differentiable_feature_is_copied_plainly(device):
    feature = torch.randn(4, 6, device=device, requires_grad=True).t()
    predictor = FeMo(1, gamma=0.01)
    state = predictor.update(predictor.init(), feature, 0)
    state = predictor.update(state, feature, 1)
    state = predictor.update(state, feature, 2)
    assert not any(buffer.requires_grad for buffer in state.buffers)
    assert all(buffer.is_contiguous() for buffer in state.buffers)


def test_states_are_values(device):
    predictor = TaylorSeer(1)
    early = run(predictor, {0: np.zeros((1, 1)), 1: np.ones((1, 1))}, device)
    predictor.update(early, torch.full((1, 1), 9.0, device=device), 2)
    assert predictor.predict(early, 3).item() == 3.0


@pytest.mark.parametrize("other", [
    torch.zeros(2, 5, 7), torch.zeros(3, 5, 7, dtype=torch.bfloat16), torch.zeros(3, 35)])
def test_a_state_of_another_shape_or_dtype_is_refused(other):
    predictor = TaylorSeer(1)
    state = run(predictor, random_features((0,)))
    with pytest.raises(StateError, match=r"predictor\.init\(\)"):
        predictor.update(state, other, 1)


def test_forecasting_from_nothing_is_refused():
    with pytest.raises(StateError, match="at least one update"):
        TaylorSeer().predict(TaylorSeer().init(), 1)


@pytest.mark.parametrize("step", [float("nan"), float("inf"), torch.tensor(1.0)])
def test_a_coordinate_must_be_a_finite_number(step):
    with pytest.raises(ValueError, match="step must be a finite int or float"):
        TaylorSeer().update(TaylorSeer().init(), torch.zeros(1, 1), step)


@pytest.mark.parametrize("feature", [torch.zeros(2, 2, dtype=torch.int64), torch.tensor(1.0)])
def test_a_feature_must_be_a_floating_batch(feature):
    with pytest.raises(StateError, match="floating-point"):
        TaylorSeer().update(TaylorSeer().init(), feature, 0)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: TaylorSeer(9), "max_order must be 0 … 4; got 9"),
    (lambda: TaylorSeer(-1), "max_order must be 0 … 4; got -1"),
    (lambda: FeMo(9), "max_order"),
    (lambda: FeMo(beta=1.0), "beta must be between −1 and 1, both excluded; got 1.0"),
    (lambda: FeMo(beta=-1.5), "beta must be"),
    (lambda: FeMo(beta=float("nan")), "beta must be"),
    (lambda: FeMo(beta="much"), "beta must be between −1 and 1, both excluded; got 'much'"),
    (lambda: FeMo(gamma=-0.1), "gamma must be 0 or more"),
    (lambda: FeMo(beta_min=0.5, beta_max=0.4), "beta_min must not exceed beta_max; got 0.5 > 0.4"),
    (lambda: FeMo(beta=0.9, gamma=0.01), "got 0.9 outside 0.2 … 0.45: widen the bounds or set gamma to 0"),
    (lambda: FeMo(momentum_start="nowhere"), "momentum_start must be"),
    (lambda: FeMo(adaptation="guess"), r'adaptation must be "sign" or "least_squares"; got .guess.'),
    (lambda: FeMo(beta=0.9, adaptation="least_squares"), "0.2 … 0.45: widen the bounds or set adaptation to sign"),
])
def test_bad_input_names_parameter_value_and_remedy(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_bounds_do_not_bind_a_fixed_beta():
    assert FeMo(beta=-0.9, gamma=0.0).beta == -0.9


def test_what_is_fixed_of_a_predictor():
    assert TaylorSeer(2).fixed == TaylorSeer(2)
    assert FeMo(1, beta=0.3, gamma=0.1).fixed == FeMo(1, beta=0.3)
    assert FeMo(1, beta=0.3, adaptation="least_squares").fixed == FeMo(1, beta=0.3)


# ScaledTaylor

def test_a_scaled_slope_is_by_hand(device):
    predictor = ScaledTaylor(factors=((2, 0.5), (7, 2.0)))
    state, found = predictor.init(), []
    for step, value in ((0, 10.0), (2, 12.0), (4, 14.0), (7, 20.0)):  # slopes of 1, 1 and 2
        state = predictor.update(state, torch.full((1, 3), value, device=device), step)
        found.append(predictor.predict(state, step + 2)[0, 0].item())
    assert found == [10.0, 12 + 0.5 * 1 * 2, 14 + 0.5 * 1 * 2, 20 + 2 * 2 * 2]


def test_without_factors_it_is_taylorseer_bit_for_bit(device):
    features = random_features(UNEVEN)
    for scaled in (ScaledTaylor(), ScaledTaylor(factors=((100, 0.3),)), ScaledTaylor(factors=((0, 1.0),))):
        one, other = run(TaylorSeer(1), features, device), run(scaled, features, device)
        assert torch.equal(TaylorSeer(1).predict(one, 20), scaled.predict(other, 20))


def test_what_no_factors_can_be():
    with pytest.raises(ValueError, match="max_order must be 0 or 1 for ScaledTaylor"):
        ScaledTaylor(2)
    with pytest.raises(ValueError, match="factors must be of ascending steps"):
        ScaledTaylor(factors=((3, 1.0), (3, 0.5)))
    with pytest.raises(ValueError, match="the factor of step 4 must be finite; got nan"):
        ScaledTaylor(factors=((4, float("nan")),))
