"""A real browser on a real ComfyUI's own front end: Chromium without a window, driven by playwright."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosts import find_chromium

from benchmarks.engines.comfy_server import Client

CHROMIUM = find_chromium()
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SIZE = (1120, 900)  # small, as without a GPU every pixel costs; as high as a menu of older front ends
# What a ComfyUI says of itself on a fresh installation, or that reaches no network: not ours to mend.
HARMLESS = re.compile(
    r"net::ERR_(INTERNET_DISCONNECTED|NAME_NOT_RESOLVED|TUNNEL|PROXY|CONNECTION|ABORTED|FAILED)|404 \(Not Found\)|"
    r"status of 40[03]|Failed to (load|fetch) (templates|survey|release)|[Ss]entry|firebase|"
    r"graph accessed before initialization|api\.comfy\.org|huggingface\.co|Prompt execution failed|NetworkError|"
    r"AxiosError|Network Error")


# How many workflows have ended, for this tab: messages come in their order, so ours have come before.
COUNT_ENDS = """() => {
    window.femoTestEnds = 0
    for (const end of ["execution_success", "execution_error", "execution_interrupted"])
        app.api.addEventListener(end, () => { window.femoTestEnds += 1 })
}"""
OURS = re.compile(r"/extensions/femo|/prompt$")  # what must never be refused or lacking


class Page:
    """ComfyUI in a tab. `errors` are those of its console that say something of us or of the workflow.

    settings: the front end's, with _ for the dots of their names (VueNodes_Enabled=True).
    """

    def __init__(self, page: Any, server: Client, **settings: Any):
        self.page, self.server = page, server
        self.settings = {"Comfy." + name.replace("_", "."): value for name, value in settings.items()}
        self.errors: list[str] = []
        page.on("console", lambda message: self._note(message.text) if _is_error(message) else None)
        page.on("pageerror", lambda error: self._note(error.stack or str(error)))
        page.on("response", lambda answer: self.errors.append(f"{answer.status} {answer.url}")
                if answer.status >= 400 and OURS.search(answer.url) else None)
        self.open()

    def _note(self, text: str) -> None:
        if not HARMLESS.search(text):
            self.errors.append(text)

    def open(self) -> None:
        folder = self.server.log.parent / "user" / "default"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comfy.settings.json").write_text(json.dumps({"Comfy.TutorialCompleted": True, **self.settings}))
        self.page.goto(f"http://{self.server.address}/", timeout=60_000)
        self.page.wait_for_function("!!window.LiteGraph?.registered_node_types.FeMoCache", timeout=90_000)
        self.page.wait_for_timeout(2000)  # the front end goes on to load the last, or its first, workflow
        self.run(COUNT_ENDS)
        # ComfyUI 0.3.64 has errors of its own as it starts.
        self.errors = [error for error in self.errors if "femo" in error]

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def load(self, workflow: dict[str, Any]) -> None:
        self.run("async workflow => { await app.loadGraphData(workflow) }", workflow)
        self.page.keyboard.press("Escape")  # what a missing model is asked for with

    def load_api(self, prompt: dict[str, Any], name: str) -> None:
        self.run("async ([prompt, name]) => { await app.loadApiJson(prompt, name) }", [prompt, name])
        self.page.keyboard.press("Escape")

    def prompt(self) -> dict[str, Any]:
        """What would be queued, in API format."""
        return self.run("async () => (await app.graphToPrompt()).output")

    def saved(self) -> dict[str, Any]:
        """What would be saved: as text, since what JavaScript leaves undefined would come here as null."""
        return json.loads(self.run("() => JSON.stringify(app.graph.serialize())"))

    def alerts(self) -> list[str]:
        """Of workflows that the front end takes for invalid; they stay until they are closed."""
        shown = self.run("() => [...document.querySelectorAll('.p-toast-message')].map(e => e.innerText)")
        return [text for text in shown if "Invalid workflow" in text]

    def missing(self) -> list[str]:
        """Types of nodes that the front end does not know."""
        return self.run("() => app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type] && !n.subgraph)"
                        ".map(n => n.type)")

    def queue(self, seconds: float = 240) -> dict[str, Any]:
        """Queues the workflow as the button does, waits for its end, and returns its history."""
        self.wait_until_idle()
        known, ends = self.server.get("/history").json(), self.run("() => window.femoTestEnds")
        self.run("async () => { await app.queuePrompt(0) }")
        self.page.wait_for_function("ends => window.femoTestEnds > ends", arg=ends, timeout=1000 * seconds)
        found: list[dict[str, Any]] = []
        self.until(lambda: found.extend(
            entry for key, entry in self.server.get("/history").json().items() if key not in known) or found)
        self.page.wait_for_timeout(300)  # for what is drawn
        return found[0]

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so within {seconds} s")
            self.page.wait_for_timeout(100)

    def wait_until_idle(self) -> None:
        while any(self.server.get("/queue").json().values()):
            self.page.wait_for_timeout(200)
        self.page.wait_for_timeout(500)

    def fit(self) -> None:
        """All nodes in view."""
        self.run("""() => {
            const nodes = app.graph.nodes, c = app.canvas, size = [c.canvas.clientWidth, c.canvas.clientHeight]
            const left = Math.min(...nodes.map(n => n.pos[0]))
            const top = Math.min(...nodes.map(n => n.pos[1] - 40))
            const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]))
            const low = Math.max(...nodes.map(n => n.pos[1] + n.size[1]))
            c.ds.scale = Math.min(1, 0.9 * size[0] / (right - left), 0.85 * size[1] / (low - top))
            c.ds.offset = [0.08 * size[0] / c.ds.scale - left, 0.1 * size[1] / c.ds.scale - top]
            c.min_font_size_for_lod = c.low_quality_zoom_threshold = 0 // words, however small
            c.setDirty(true, true)
        }""")
        self.page.wait_for_timeout(800)

    def screenshot(self, path: Path, **options: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path), **options)


def _is_error(message: Any) -> bool:
    """An exception in what listens to the server's messages is a warning only."""
    return message.type == "error" or (message.type == "warning" and "Unhandled message" in message.text)


@contextmanager
def open_browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, server: Client, size: tuple[int, int] = SIZE, **settings: Any) -> Iterator[Page]:
    """A tab of its own, of so many pixels."""
    viewport = dict(zip(("width", "height"), size, strict=True))
    context = browser.new_context(viewport=viewport, reduced_motion="reduce")  # every frame costs, too
    try:
        yield Page(context.new_page(), server, **settings)
    finally:
        context.close()
