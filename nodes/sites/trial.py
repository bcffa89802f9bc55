"""Whether a site can serve a network that another pack, or a newer host, has changed."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .base import Forecasts

TOLERANCE = 0.02  # of the result, relative: over what rounding does in half precision, under what is wrong


class Trial(Forecasts):
    """The features of one full step. A step that is made from them must give the same: what is taken elsewhere than
    where the head takes it, or comes out in another order, does not."""

    def __init__(self) -> None:
        self._features: dict[str, Tensor] = {}

    def keep(self, name: str, feature: Tensor) -> None:
        self._features[name] = feature.clone()

    def of(self, name: str) -> Tensor:
        return self._features[name].clone()

    def passes(self, wanted: Tensor, again: Callable[[], Tensor]) -> bool:
        """Whether `again()`, from these features, is like the result of the full step. What can't be run is not."""
        try:
            result = again()
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False
        error = (result.float() - wanted.float()).norm() / wanted.float().norm()
        return bool(error <= TOLERANCE)  # not if it is nan


def needs_trial(network: nn.Module, kind: type, derived: bool) -> bool:
    """kind: the class that its family goes by. derived: of a class that no family names."""
    replaced = any(name.lstrip("_").startswith("forward") and callable(part) for name, part in vars(network).items())
    return derived or replaced or type(network) is not kind
