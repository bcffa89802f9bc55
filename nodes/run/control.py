"""ControlNets: the host runs them before the network, on predicted steps too, where nothing would come of it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..reach import InReach


class DeferredControl(InReach, dict[str, Any]):
    """What a ControlNet would give: it runs when asked to. Empty until then, for those who look into it."""

    def __init__(self, control: Any, arguments: tuple[Any, ...]):
        super().__init__()
        self.control, self.arguments = control, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ()

    def run(self) -> dict[str, Any] | None:
        return self.control.get_control(*self.arguments)

    def active(self) -> tuple[bool, ...]:
        """Which of the chained ControlNets have their time: one with a start or an end comes and goes in mid-run."""
        time, found, control = float(self.arguments[1][0]), [], self.control
        while control is not None:
            start, end = getattr(control, "timestep_range", None) or (time, time)
            found.append(end <= time <= start)
            control = getattr(control, "previous_controlnet", None)
        return tuple(found)


class _Deferring(InReach):
    """Stands in for a ControlNet in the conditioning of one evaluation. Pickled, it is one that gives nothing."""

    def __init__(self, control: Any = None):
        self._control = control

    def __reduce__(self) -> tuple[Any, ...]:
        return _Deferring, ()

    def get_control(self, *arguments: Any) -> DeferredControl | None:
        return None if self._control is None else DeferredControl(self._control, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)


def with_deferred_controls(conds: list[list[dict[str, Any]] | None]) -> list[list[dict[str, Any]] | None]:
    """The conditionings with their ControlNets put off. One that several share stays one: the host batches by it."""
    deferring: dict[int, _Deferring] = {}

    def deferred(cond: dict[str, Any]) -> dict[str, Any]:
        control = cond.get("control")
        if control is None:
            return cond
        return {**cond, "control": deferring.setdefault(id(control), _Deferring(control))}

    return [None if group is None else [deferred(cond) for cond in group] for group in conds]


def controls_of(control: Any) -> Hashable:
    """Of two calls, whether the same ControlNets had a say: from features with one nothing is forecast without it."""
    if isinstance(control, DeferredControl):
        return control.active()
    if isinstance(control, dict):
        return tuple(sorted((str(key), tuple(part is not None for part in parts)) for key, parts in control.items()))
    return None
