"""example_workflows/*.json and their pictures, from example_workflows/api/*.json, in a real browser.

`make workflows`, or `make workflows NAMES="x y"` for some of them. Those whose models come with
this pack are run, so that their pictures show results.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path

from browser import Page, open_browser, open_page
from hosts import ROOT, server_environment, this_host
from PIL import Image

from benchmarks.engines.comfy_server import comfy_server

FOLDER = ROOT / "example_workflows"
NEEDS_A_TEST_NODE = {"flux_femo"}  # for its prompts: for the API only
FOLDERS = {"unet_name": "diffusion_models", "clip_name": "text_encoders", "vae_name": "vae", "lora_name": "loras",
           "control_net_name": "controlnet", "ckpt_name": "checkpoints", "text_encoder": "text_encoders"}
PICTURES = ROOT / "web" / "docs" / "pictures"
GAP = 8
WIDTH = 1000  # pixels, of a picture

# Seeds that stay, and room for what nodes show: pictures as they will be, the strip of a cache node.
TIDY = """() => {
    const shows = ["SaveImage", "PreviewImage", "SaveVideo"]
    for (const node of app.graph.nodes) {
        for (const widget of node.widgets ?? []) {
            if (widget.name === "control_after_generate") widget.value = "fixed"
        }
        const [width, height] = node.computeSize()
        const size = [Math.max(width, 280), height]
        if (shows.includes(node.type)) size[1] += 240
        if (node.type.startsWith("FeMo")) { size[0] = 360; size[1] += 40 }
        node.setSize(size)
    }
    app.graph.arrange(70)
}"""
# Of a workflow with FeMo Auto: another picture.
OTHER_SEED = """() => {
    if (!app.graph.nodes.some(n => n.type === "FeMoAuto")) return false
    app.graph.nodes.find(n => n.type === "KSampler").widgets.find(w => w.name === "seed").value += 1
    return true
}"""
HIDDEN = ".p-toast, .side-tool-bar-container { display: none !important }"


def stand_ins(names: list[str], base: Path) -> None:
    """Empty files under the names of the models, so that the front end does not ask for them; and a picture."""
    for name in names:
        for node in json.loads((FOLDER / "api" / f"{name}.json").read_text()).values():
            for key, value in node["inputs"].items():
                if folder := FOLDERS.get(key.rstrip("12")):
                    path = base / "models" / folder / value
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
    (base / "input").mkdir(exist_ok=True)
    Image.new("RGB", (512, 512), "white").save(base / "input" / "example.png")


def main(names: list[str]) -> None:
    host = this_host()
    if host is None:
        sys.exit("no ComfyUI found")
    names = names or sorted({path.stem for path in (FOLDER / "api").glob("*.json")} - NEEDS_A_TEST_NODE)
    with tempfile.TemporaryDirectory() as folder, comfy_server(
            host, Path(folder) / "base", environment=server_environment(host)) as server, open_browser() as browser:
        stand_ins(names, server.log.parent)
        for name in names:
            with open_page(browser, server, size=(1600, 1000), Minimap_Visible=False) as page:
                page.load_api(json.loads((FOLDER / "api" / f"{name}.json").read_text()), name)
                page.page.wait_for_timeout(500)
                page.run(TIDY)
                workflow = page.saved()
                # Of this browser, not of the workflow.
                workflow = {key: value for key, value in workflow.items() if key != "id"} | {"extra": {}}
                (FOLDER / f"{name}.json").write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n")
                if name.startswith("dit"):
                    print(name, page.queue()["status"]["status_str"])
                    if page.run(OTHER_SEED):  # what was learned in the first run
                        print(name, page.queue()["status"]["status_str"])
                    page.page.wait_for_timeout(8000)  # until the notice that it is done has gone
                page.page.add_style_tag(content=HIDDEN)
                page.fit()
                page.screenshot(Path(folder) / "shot.png", clip={"x": 60, "y": 80, "width": 1540, "height": 900})
                picture = Image.open(Path(folder) / "shot.png").convert("RGB")
                picture.thumbnail((WIDTH, WIDTH))
                picture.save(FOLDER / f"{name}.jpg", quality=80)
                if name == "dit_femo":
                    node_picture(page, "FeMoAuto", PICTURES / "auto_node.png", Path(folder) / "shot.png")
                if name == "dit_compare":
                    help_pictures(page, server.log.parent / "output", Path(folder) / "shot.png")
                print(name, page.missing(), page.errors)


def help_pictures(page: Page, output: Path, shot: Path) -> None:
    """Of the help pages: the cache node after its run, the report's chart, two pictures and their difference."""
    node_picture(page, "FeMoCache", PICTURES / "cache_node.png", shot)
    history = page.server.get("/history").json()
    shown = next(entry["outputs"] for entry in history.values() if "13" in entry["outputs"])

    def picture(node: str, number: int = 0) -> Image.Image:
        place = shown[node]["images"][number]
        return Image.open(io.BytesIO(page.server.get("/view", **place).content)).convert("RGB")

    picture("13").save(PICTURES / "femo_report.png", optimize=True)
    size = (192, 192)
    strip = Image.new("RGB", (3 * size[0] + 2 * GAP, size[1]), "white")
    for i, part in enumerate((picture("15", 1), picture("17", 1), picture("16", 1))):
        strip.paste(part.resize(size, Image.Resampling.NEAREST), (i * (size[0] + GAP), 0))
    strip.save(PICTURES / "image_fidelity.png", optimize=True)


def node_picture(page: Page, kind: str, path: Path, shot: Path) -> None:
    """Of the one node of its kind."""
    path.parent.mkdir(exist_ok=True)
    left, top, width, height = page.run("""kind => {
        const node = app.graph.nodes.find(n => n.type === kind), { ds } = app.canvas
        ds.scale = 1.4
        ds.offset = [100 - node.pos[0], 80 - node.pos[1]]
        app.canvas.setDirty(true, true)
        return [100, 80 - 30, node.size[0], node.size[1] + 30]
    }""", kind)
    page.page.wait_for_timeout(800)
    page.screenshot(shot)
    box = tuple(round(1.4 * edge) for edge in (left, top, left + width, top + height))
    Image.open(shot).convert("RGB").crop(box).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
