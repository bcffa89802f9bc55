"""The pack's nodes/ without ComfyUI: benchmarks.pack.sites, .families, .dit and the parts of .run that need
torch only are those of nodes/.

nodes/__init__.py imports ComfyUI, but these parts of it don't, so they are given a parent without it.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "nodes")]
