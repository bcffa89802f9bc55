"""A workflow in API format: what samples in it, found by its links, and the same with a cache or in fewer steps."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Prompt: TypeAlias = dict[str, dict[str, Any]]
"""API format: node id -> class_type and inputs, of which a link is [node id, output]."""
Info: TypeAlias = dict[str, dict[str, Any]]
"""What a server's /object_info says of its nodes."""
Place: TypeAlias = tuple[str, str]
"""A node and its input."""

CACHES = {"FeMoCache", "TaylorSeerCache", "FeMoAuto", "FeMoCalibrate", "EasyCache", "LazyCache"}
TEXTS = ("text", "prompt", "clip_l", "clip_g", "t5xxl", "llama", "string", "value")
CLASSES = "class_index"  # of DiT Class Label: there a prompt is a class
PARTS = ("start_at_step", "end_at_step", "step")  # of a run that samplers share
TO_THE_END = 10000  # an end_at_step that means all
PICTURE = "femo_picture"  # id of the node that is put in at the end


class WorkflowError(ValueError):
    """A workflow that can't be measured, and what to do about it."""


def load(path: Path) -> Prompt:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"workflow {path}: can't be read: {error}") from None
    except json.JSONDecodeError as error:
        raise WorkflowError(f"workflow {path}: no JSON: {error}") from None
    if isinstance(found, dict) and "nodes" in found:
        raise WorkflowError(f"workflow {path}: this one is for the browser. Open it in ComfyUI and save it by "
                            "Workflow, Export (API)")
    if isinstance(found, dict) and isinstance(found.get("prompt"), dict):
        found = found["prompt"]  # as it is posted to a server
    if not isinstance(found, dict) or not found or not all(
            isinstance(node, dict) and {"class_type", "inputs"} <= node.keys() for node in found.values()):
        raise WorkflowError(f"workflow {path}: not in API format: nodes with class_type and inputs. In ComfyUI: "
                            "Workflow, Export (API)")
    return found


@dataclass(frozen=True)
class Sampling:
    """What is measured of a workflow: its sampler, or several that follow one another, up to the first picture.

    models: where the network comes in, each to be accelerated. steps, parts: the numbers of steps, and those that say
    which of them a sampler takes.
    """

    prompt: Prompt
    samplers: tuple[str, ...]
    models: tuple[Place, ...]
    steps: tuple[Place, ...]
    parts: tuple[Place, ...]
    seeds: tuple[Place, ...]
    texts: tuple[Place, ...]

    @property
    def total_steps(self) -> int:
        """Of the first; 0: it is not known where they are set."""
        return next((self.prompt[node]["inputs"][name] for node, name in self.steps), 0)

    @property
    def draws_classes(self) -> bool:
        return any(name == CLASSES for _, name in self.texts)

    def settings(self) -> dict[str, Any]:
        """Of the samplers and of what they go by, as far as they are set by hand."""
        nodes = dict.fromkeys([*self.samplers, *(node for node, _ in (*self.steps, *self.models))])
        return {f"{node} {self.prompt[node]['class_type']}": {
            name: value for name, value in self.prompt[node]["inputs"].items() if not is_link(value)}
            for node in nodes}

    def files(self) -> list[str]:
        """Names of model files."""
        values = (value for node in self.prompt.values() for value in node["inputs"].values())
        return [value for value in values if isinstance(value, str) and Path(value).suffix in (
            ".safetensors", ".gguf", ".pt", ".pth", ".ckpt", ".sft")]


@dataclass(frozen=True)
class Method:
    """A way to sample: by a node before each sampler, or by `fewer` times fewer steps, or neither."""

    name: str
    node: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    fewer: float = 1.0


def find(prompt: Prompt, info: Info, sampler: str = "") -> Sampling:
    """sampler: the node whose result is measured, where there are several that don't follow one another.

    Raises WorkflowError.
    """
    prompt = without_caches(prompt)
    for node, described in prompt.items():
        if described["class_type"] not in info:
            raise WorkflowError(f"node {node}: the server has no {described['class_type']}: install the pack that it "
                                "is from, or choose another workflow")
    graph = _Graph(prompt, info)
    last = _last_sampler(graph, sampler)
    picture = next((link for node in graph.after(last) for link in graph.outputs(node, "IMAGE")), None)
    if picture is None:
        raise WorkflowError(f"no picture comes of the sampler {graph.name(last)}: decode what it gives (VAE Decode)")
    samplers = [node for node in graph.before(last) if graph.is_sampler(node)]
    kept = {node: prompt[node] for node in prompt if node in {*graph.before(str(picture[0]))}}
    kept[PICTURE] = {"class_type": "PreviewImage", "inputs": {"images": picture}}
    models = tuple(place for node in samplers for place in graph.models(node))
    if not models:
        raise WorkflowError(f"nothing is linked to the model of the sampler {graph.name(last)}")
    return Sampling(kept, tuple(samplers), models, _numbers(graph, samplers, "SIGMAS", ("steps",)),
                    _numbers(graph, samplers, "SIGMAS", PARTS),
                    _numbers(graph, samplers, "NOISE", ("seed", "noise_seed")), tuple(_texts(graph, samplers)))


def without_caches(prompt: Prompt) -> Prompt:
    """Caches are taken out: what they give is what they were given."""
    prompt = copy.deepcopy(prompt)
    for node in [node for node, described in prompt.items() if described["class_type"] in CACHES]:
        model = prompt.pop(node)["inputs"].get("model")
        for described in prompt.values():
            inputs = described["inputs"]
            inputs.update({name: model for name, value in inputs.items() if is_link(value) and str(value[0]) == node})
    return prompt


def with_method(sampling: Sampling, method: Method, text: str, seed: int, info: Info, steps: int = 0,
                name_of_node: str = "cache") -> Prompt:
    """The workflow with a method put in. steps: instead of the workflow's own."""
    prompt = copy.deepcopy(sampling.prompt)
    total = sampling.total_steps
    wanted = math.ceil((steps or total) / method.fewer)
    for node, name in sampling.steps:
        prompt[node]["inputs"][name] = max(1, round(prompt[node]["inputs"][name] * wanted / total))
    for node, name in sampling.parts if wanted != total else ():
        if (value := prompt[node]["inputs"][name]) < TO_THE_END:
            prompt[node]["inputs"][name] = round(value * wanted / total)
    for node, name in sampling.seeds:
        prompt[node]["inputs"][name] = seed
    for node, name in sampling.texts:
        prompt[node]["inputs"][name] = text
        if name == CLASSES and "class_name" in prompt[node]["inputs"]:
            prompt[node]["inputs"]["class_name"] = "(by index)"
    for number, (node, name) in enumerate(sampling.models if method.node else ()):
        inputs = {**defaults(info[method.node]), **method.inputs, "model": prompt[node]["inputs"][name]}
        put_in = f"femo_{name_of_node}_{number}"
        prompt[put_in] = {"class_type": method.node, "inputs": inputs}
        prompt[node]["inputs"][name] = [put_in, 0]
    return prompt


def defaults(described: dict[str, Any]) -> dict[str, Any]:
    """Of a node's required inputs, but those that are links."""
    found = {}
    for name, (kind, *rest) in described["input"].get("required", {}).items():
        options = rest[0] if rest else {}
        choices = kind if isinstance(kind, list) else options.get("options")
        if "default" in options or choices:
            found[name] = options.get("default", choices[0] if choices else None)
    return found


def missing_files(prompt: Prompt, info: Info) -> list[str]:
    """What a workflow names that the server's lists don't: mostly files. And nodes that it does not have."""
    found = []
    for described in without_caches(prompt).values():
        kinds = _inputs(info.get(described["class_type"], {}))
        if described["class_type"] not in info:
            found.append(f"the node {described['class_type']}")
        for name, value in described["inputs"].items():
            kind, *rest = kinds.get(name, [""])
            choices = kind if isinstance(kind, list) else (rest[0] if rest else {}).get("options")
            if choices is not None and isinstance(value, str) and all(isinstance(one, str) for one in choices) and (
                    value not in choices):
                found.append(value)
    return found


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


def _inputs(described: dict[str, Any]) -> dict[str, Any]:
    kinds = described.get("input", {})
    return {**kinds.get("required", {}), **kinds.get("optional", {})}


class _Graph:
    def __init__(self, prompt: Prompt, info: Info):
        self.prompt, self.info = prompt, info

    def name(self, node: str) -> str:
        described = self.prompt[node]
        title = described.get("_meta", {}).get("title", described["class_type"])
        return f"{node} ({described['class_type']}" + (f", {title!r})" if title != described["class_type"] else ")")

    def links(self, node: str, kind: str = "") -> Iterator[tuple[str, str]]:
        """Inputs that are linked, of a type, and the nodes that they come from."""
        kinds = _inputs(self.info[self.prompt[node]["class_type"]])
        for name, value in self.prompt[node]["inputs"].items():
            if is_link(value) and str(value[0]) in self.prompt and (not kind or kinds.get(name, [""])[0] == kind):
                yield name, str(value[0])

    def outputs(self, node: str, kind: str) -> Iterator[list[Any]]:
        for slot, output in enumerate(self.info[self.prompt[node]["class_type"]].get("output", ())):
            if output == kind:
                yield [node, slot]

    def is_sampler(self, node: str) -> bool:
        kinds = [kind for kind in ("MODEL", "GUIDER", "LATENT") if [*self.links(node, kind)]]
        return "LATENT" in kinds and len(kinds) > 1 and bool([*self.outputs(node, "LATENT")])

    def before(self, node: str) -> list[str]:
        """The node and all that it depends on, what comes first first."""
        found: dict[str, None] = {}

        def visit(one: str, path: tuple[str, ...]) -> None:
            if one in path:
                raise WorkflowError(f"the node {self.name(one)} depends on itself")
            if one not in found:
                for _, source in self.links(one):
                    visit(source, (*path, one))
                found[one] = None

        visit(node, ())
        return [*found]

    def after(self, node: str) -> Iterator[str]:
        """What depends on the node, the nearest first."""
        seen, upcoming = {node}, [node]
        for one in upcoming:
            for other in self.prompt:
                if other not in seen and any(source == one for _, source in self.links(other)):
                    seen.add(other)
                    upcoming.append(other)
                    yield other

    def models(self, node: str) -> Iterator[Place]:
        """Where the network comes into a sampler, by its guider where it has one."""
        yield from ((node, name) for name, _ in self.links(node, "MODEL"))
        for _, guider in self.links(node, "GUIDER"):
            yield from self.models(guider)

    def number(self, node: str, name: str, names: tuple[str, ...]) -> Place | None:
        """Where a number is set: in this input, or in one of these names of the node that is linked to it."""
        value = self.prompt[node]["inputs"].get(name)
        if is_link(value) and str(value[0]) in self.prompt:
            source = str(value[0])
            return next((place for each in names if (place := self.number(source, each, names))), None)
        return (node, name) if isinstance(value, int) and not isinstance(value, bool) else None


def _last_sampler(graph: _Graph, wanted: str) -> str:
    samplers = [node for node in graph.prompt if graph.is_sampler(node)]
    named = ", ".join(map(graph.name, samplers))
    if wanted:
        if wanted not in samplers:
            raise WorkflowError(f"sampler {wanted!r} is not one of this workflow's: {named or 'it has none'}")
        return wanted
    if not samplers:
        raise WorkflowError("no sampler found: a node that takes a model (or a guider) and a latent, and gives a "
                            "latent. There are: "
                            + ", ".join(sorted({one["class_type"] for one in graph.prompt.values()})))
    last = [node for node in samplers if {*samplers} <= {*graph.before(node)}]
    if not last:
        raise WorkflowError(f"several samplers that don't follow one another: {named}. Say by --sampler ID whose "
                            "picture is to be measured")
    return last[0]


def _numbers(graph: _Graph, samplers: list[str], kind: str, names: tuple[str, ...]) -> tuple[Place, ...]:
    """Where numbers of these names are set: in the samplers, or before what they are given of a kind."""
    found: dict[Place, None] = {}
    for sampler in samplers:
        sources = [source for _, source in graph.links(sampler, kind)]
        for node in dict.fromkeys([sampler, *(node for source in sources for node in graph.before(source))]):
            places = (graph.number(node, name, ("value", *names)) for name in names)
            found.update(dict.fromkeys(filter(None, places)))
    return tuple(found)


def _texts(graph: _Graph, samplers: list[str]) -> list[Place]:
    """Of what is to be drawn, the nearest to each sampler."""
    found: dict[Place, None] = {}
    for sampler in samplers:
        nodes = [sampler, *(source for _, source in graph.links(sampler, "GUIDER"))]
        wanted = [dict(graph.links(node, "CONDITIONING")) for node in nodes]
        for links in filter(None, wanted):
            start = links.get("positive") or next(iter(links.values()))
            for node in reversed(graph.before(start)):
                inputs = graph.prompt[node]["inputs"]
                places = [(node, name) for name in (*TEXTS, CLASSES) if isinstance(inputs.get(name), str)]
                if places:
                    found.update(dict.fromkeys(places))
                    break
    if not found:
        raise WorkflowError("no text found before the sampler's positive conditioning: there must be a node with one "
                            f"of the inputs {', '.join(TEXTS)}, or a DiT Class Label")
    return [*found]
