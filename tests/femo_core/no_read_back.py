"""Fails where a value is read back from the device (`.item()`, `bool(tensor)`, `.tolist()`)."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class NoReadBack(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a value was read back from the device"
        return func(*args, **(kwargs or {}))
