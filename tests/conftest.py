"""Tests that make sense on a GPU take `device` and run on every device present."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

pytest.register_assert_rewrite("hosts_agree")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the imports bring is never looked through for garbage: half a second each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # what is left goes as it always does


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        import torch  # late: the process that only hands tests out to others does without

        devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
        metafunc.parametrize("device", [torch.device(name) for name in devices], ids=devices)
