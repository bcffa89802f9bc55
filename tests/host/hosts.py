"""Where the ComfyUIs are that the tests here run against, and how they are run: each in a process of its own.

`python hosts.py test` runs pytest once per ComfyUI found; `python hosts.py requirements` prints what the first one
needs; `python hosts.py front-ends` installs the front end of each.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STUBS = HERE / "stubs"  # import stand-ins for torchvision and torchaudio, of which not every platform has a CPU build
WORKERS = ("-n", "4")  # processes: models are small, and servers and browsers are mostly waited for
MISSING = (
    "no ComfyUI found, host tests skipped: get one with `pip install comfy-cli && comfy install`, "
    "or name one in COMFYUI_PATH"
)
NO_CHROMIUM = "no Chromium found, browser tests skipped: get one with `apt install chromium`"
ONE_HOST = ("one ComfyUI only: others are run too where COMFYUI_PATH names them all, separated by "
            f"{os.pathsep!r} (CONTRIBUTING.md)")
# A constraint, two stubs, two optional ones, and half a gigabyte of pictures.
NOT_NEEDED = {"torch", "torchvision", "torchaudio", "kornia", "spandrel", "comfyui-workflow-templates"}
FRONT_END = {"comfyui-frontend-package", "comfyui-embedded-docs"}  # of each ComfyUI its own version


def find_hosts() -> list[Path]:
    """COMFYUI_PATH, else the ComfyUI whose custom_nodes holds this pack, else comfy-cli's default folder."""
    if named := os.environ.get("COMFYUI_PATH"):
        hosts = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
        if wrong := [str(host) for host in hosts if not is_comfyui(host)]:
            sys.exit(f"COMFYUI_PATH: no ComfyUI (main.py and comfy/) in {', '.join(wrong)}")
        return hosts
    candidates = [ROOT.parents[1]] if ROOT.parent.name == "custom_nodes" else []
    candidates.append(Path("~/comfy/ComfyUI").expanduser())
    return [host for host in candidates if is_comfyui(host)][:1]


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def this_host() -> Path | None:
    """The one ComfyUI of this process."""
    if chosen := os.environ.get("FEMO_TEST_HOST"):
        return Path(chosen)
    return next(iter(find_hosts()), None)


def version(host: Path) -> str:
    match = re.search(r'__version__ = "(.+?)"', (host / "comfyui_version.py").read_text())
    return match.group(1) if match else "unknown"


def requirements(host: Path) -> tuple[list[str], list[str]]:
    """What it shares with other ComfyUIs, and its front end."""
    lines = (host / "requirements.txt").read_text().splitlines()
    packages = {line: re.split(r"[^\w-]", line.strip())[0] for line in lines}
    return ([line for line in lines if packages[line] not in NOT_NEEDED | FRONT_END],
            [line for line in lines if packages[line] in FRONT_END])


def front_end(host: Path) -> Path:
    """A folder with the front end of just the version that this ComfyUI asks for, installed at the first call.

    All else it shares with the first ComfyUI, whose requirements are in the virtual environment.
    """
    folder = Path(sys.prefix) / f"comfyui-{version(host)}"
    if not folder.exists():
        begun = folder.with_name(f"{folder.name}.begun")  # an interrupted one is not taken for a whole one
        shutil.rmtree(begun, ignore_errors=True)
        _, pins = requirements(host)
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-compile",
               "--no-deps", "--target", str(begun), *pins]
        subprocess.run(pip, check=True)
        begun.rename(folder)
    return folder


def server_environment(host: Path) -> dict[str, str]:
    """What a server process of this ComfyUI needs besides ours."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (STUBS, front_end(host))))}


def load_pack(name: str) -> ModuleType:
    """The pack, loaded from its folder as ComfyUI's custom node loader does it, in a process that has ComfyUI."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
        importlib.import_module(f"{name}.nodes")
    return module


def run_tests(arguments: list[str]) -> int:
    hosts = find_hosts()
    worst = 0
    for host in hosts:
        print(f"== ComfyUI {version(host)} at {host}", flush=True)
        front_end(host)  # before several processes ask for it at a time
        command = [sys.executable, "-m", "pytest", str(HERE), *WORKERS, *arguments]
        environment = {**os.environ, "FEMO_TEST_HOST": str(host), "OMP_NUM_THREADS": "1"}
        worst = max(worst, subprocess.run(command, env=environment).returncode)
    print("\n".join(["", *found_and_lacking(hosts, find_chromium())]))
    return worst


def found_and_lacking(hosts: list[Path], chromium: str | None) -> list[str]:
    """The last lines of `make test`: what ran against what, and how to get what was not there."""
    found = [f"ran: the tests against ComfyUI {version(host)} at {host}" for host in hosts] or [MISSING]
    if hosts and chromium is not None:
        found.append(f"ran: the browser tests in {chromium}")
    if chromium is None:
        found.append(NO_CHROMIUM)
    return [*found, ONE_HOST] if len(hosts) == 1 else found


if __name__ == "__main__":
    if sys.argv[1] == "requirements":
        print("\n".join(line for host in find_hosts()[:1] for line in requirements(host)[0]))
    elif sys.argv[1] == "front-ends":
        for host in find_hosts():
            front_end(host)
    else:
        sys.exit(run_tests(sys.argv[2:]))
