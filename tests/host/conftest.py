"""A ComfyUI is full of warnings of its own; only ours are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torchmetrics.functional.image  # noqa: F401 (before comfy_host's stand-in for torchvision lies in its way)

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="module")
def flux() -> Any:
    from small_flux import build_flux

    return build_flux()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The RunReport of every run in the test."""
    from comfy_host import run_module

    seen: list[Any] = []
    monkeypatch.setattr(run_module.Channel, "done", lambda _, report: seen.append(report))
    return seen
