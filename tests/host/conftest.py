"""A ComfyUI is full of warnings of its own; only ours are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
# Begun first, so that no process is left with one of them when the others are done; a file stays in one process.
LONGEST = ("test_families", "test_browser", "test_company", "test_server", "test_flux", "test_two_servers",
           "test_auto_server", "test_auto", "test_real_weights")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
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
