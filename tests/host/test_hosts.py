"""What is installed of a ComfyUI, and what `make test` says at its end."""

from __future__ import annotations

import pytest
from hosts import MISSING, NO_CHROMIUM, ONE_HOST, found_and_lacking, requirements


@pytest.fixture
def host(tmp_path):
    (tmp_path / "comfyui_version.py").write_text('__version__ = "1.2.3"')
    return tmp_path


def test_the_last_lines_say_what_ran_and_how_to_get_the_rest(host):
    ran, browser = f"ran: the tests against ComfyUI 1.2.3 at {host}", "ran: the browser tests in /bin/chromium"
    assert found_and_lacking([], None) == [MISSING, NO_CHROMIUM]
    assert found_and_lacking([], "/bin/chromium") == [MISSING]
    assert found_and_lacking([host], None) == [ran, NO_CHROMIUM, ONE_HOST]
    assert found_and_lacking([host, host], "/bin/chromium") == [ran, ran, browser]
    assert "comfy install" in MISSING
    assert "apt install" in NO_CHROMIUM
    assert "COMFYUI_PATH" in ONE_HOST


def test_the_front_end_is_a_hosts_own_and_all_else_is_shared(host):
    lines = ["comfyui-frontend-package==1.2.3", "comfyui-workflow-templates==4", "torch", "numpy>=1.25.0", "# others:",
             "comfyui-embedded-docs==5"]
    (host / "requirements.txt").write_text("\n".join(lines))
    assert requirements(host) == (["numpy>=1.25.0", "# others:"], [lines[0], lines[-1]])
