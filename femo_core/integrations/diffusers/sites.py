"""Where features are taken inside a diffusers transformer, by hooks on its blocks and their modules.

On a full step they hand over what they see. On a predicted step nothing that they stand on runs: site hidden passes
every block by and gives the forecast as what the last one returns; at site module the blocks run, which computes their
gates afresh, but get the forecasts as what their attention and MLP return. Nothing that leaves the transformer depends
on what is added to the text then: that is neither recorded nor forecast.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from .families import HIDDEN, TEXT, BlockList

HOOK = "femo"
TEXT_PART = 1  # of what an attention returns, where it returns several tensors


@dataclass
class Call:
    """The present call of a transformer, as its hooks see it: at most one of the two is set."""

    recorded: dict[str, Tensor] | None = None  # features that it left so far
    forecast: Callable[[str], Tensor] | None = None  # gives a feature in the network's place
    repeated: set[str] = field(default_factory=set[str])  # features that came twice: not to be recorded

    def keep(self, name: str, feature: Tensor) -> None:
        if self.recorded is None:
            return
        if name in self.recorded:
            self.repeated.add(name)
        self.recorded[name] = feature

    def clear(self) -> None:
        self.recorded = self.forecast = None
        self.repeated.clear()


class SiteHook(ModelHook):
    """On a predicted step the module's arguments `states` are returned as they came: it is passed by."""

    fn_ref: Any

    def __init__(self, call: Call, states: Sequence[str]):
        super().__init__()
        self.call, self.states = call, states

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.call.forecast is not None:
            return self.instead(self.call.forecast, arguments_of(type(module), args, kwargs))
        output = self.fn_ref.original_forward(*args, **kwargs)
        self.seen(output)
        return output

    def instead(self, forecast: Callable[[str], Tensor], arguments: dict[str, Any]) -> Any:
        del forecast
        given = [arguments[name] for name in self.states if arguments.get(name) is not None]
        return _alone_or_together(given or [*arguments.values()][:1])

    def seen(self, output: Any) -> None:
        """On a full step."""


class LastBlockHook(SiteHook):
    """The hidden state that it returns is the feature."""

    def instead(self, forecast: Callable[[str], Tensor], arguments: dict[str, Any]) -> Any:
        return super().instead(forecast, {**arguments, HIDDEN: forecast(HIDDEN)})

    def seen(self, output: Any) -> None:
        self.call.keep(HIDDEN, output if isinstance(output, Tensor) else output[self.states.index(HIDDEN)])


class BranchHook(SiteHook):
    """What the module returns are the features: a tensor, or several, of which one is the text's."""

    def __init__(self, call: Call, path: str):
        super().__init__(call, ())
        self.path = path
        self.names: list[str | None] = []  # of the parts of what it returned last, but for the text's

    def instead(self, forecast: Callable[[str], Tensor], arguments: dict[str, Any]) -> Any:
        parts: list[Any] = [forecast(name) if name else None for name in self.names]
        if len(parts) > TEXT_PART:
            parts[TEXT_PART] = arguments.get(TEXT)
        return _alone_or_together(parts)

    def seen(self, output: Any) -> None:
        parts: tuple[Any, ...] = (output,) if isinstance(output, Tensor) else output
        self.names = [f"{self.path}[{i}]" if isinstance(part, Tensor) and i != TEXT_PART else None
                      for i, part in enumerate(parts)]
        for name, part in zip(self.names, parts, strict=True):
            if name:
                self.call.keep(name, part)


def add_hooks(transformer: nn.Module, lists: Sequence[BlockList], site: str, call: Call) -> list[tuple[str, nn.Module]]:
    """Of site hidden or module. Returns the modules that have one now, with their paths."""
    hooks = (_module_hooks if site == "module" else _hidden_hooks)(transformer, lists, call)
    modules = [(path, transformer.get_submodule(path)) for path in hooks]
    for path, module in modules:
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hooks[path], HOOK)
    return modules


def _hidden_hooks(transformer: nn.Module, lists: Sequence[BlockList], call: Call) -> dict[str, SiteHook]:
    states = {path: blocks.states for blocks in lists for path, _ in _blocks(transformer, blocks)}
    last = [*states][-1]
    return {path: (LastBlockHook if path == last else SiteHook)(call, names) for path, names in states.items()}


def _module_hooks(transformer: nn.Module, lists: Sequence[BlockList], call: Call) -> dict[str, SiteHook]:
    hooks: dict[str, SiteHook] = {}
    for blocks in lists:
        for block_path, block in _blocks(transformer, blocks):
            modules = {**dict.fromkeys(blocks.branches, True), **dict.fromkeys(blocks.needless, False)}
            for name, is_branch in modules.items():
                path = f"{block_path}.{name.rstrip('?')}"
                if not name.endswith("?") or getattr(block, name.rstrip("?"), None) is not None:
                    hooks[path] = BranchHook(call, path) if is_branch else SiteHook(call, (HIDDEN, TEXT))
    return hooks


def _blocks(transformer: nn.Module, blocks: BlockList) -> Iterator[tuple[str, nn.Module]]:
    for name, block in transformer.get_submodule(blocks.path).named_children():
        yield f"{blocks.path}.{name}", block


@cache
def _parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    """Of its forward, without self. The class's: an instance's is wrapped by hooks."""
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def arguments_of(kind: type[nn.Module], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those that a module was called with, by name."""
    return {**dict(zip(_parameters(kind), args, strict=False)), **kwargs}


def _alone_or_together(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else tuple(parts)
