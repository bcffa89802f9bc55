"""The pack's nodes/ without ComfyUI: `import pack` makes pack.sites, pack.families, pack.dit and the parts of
pack.run that need torch only importable.

nodes/__init__.py imports ComfyUI, but these parts of it don't, so they are given a parent without it.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parent.parent / "nodes")]
