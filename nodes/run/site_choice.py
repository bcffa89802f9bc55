"""At which site a run takes its features: the one asked for, or the next that the model has and the memory holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..families import Family
from ..sites import FALLBACK, SITES, AbstractSite
from .memory import Room, expected_features

DID_NOT_RUN = ("modules whose features are recorded did not run: they are compiled, fused with others, or skipped or "
               "replaced by another node")
COMPILED = "torch_compile_kwargs"  # among the model_options, where a node of ComfyUI's or another's has compiled


class SiteChoice:
    """Of one run. It may change at once, where the model lacks the site; before the model is loaded, by the size that
    the cache is expected to have; after the first evaluation, by its true size; and where its features do not come.

    why: the reason for the first change, or "". warn: takes those for the others.
    """

    def __init__(self, wanted: str, network: nn.Module, family: Family, model_options: dict[str, Any], room: Room,
                 warn: Callable[[str], None]):
        self.network, self.family, self.room, self._warn = network, family, room, warn
        self.name, self.why = _available(wanted, network, family, model_options)
        self.measured = False  # the true sizes are known
        # By site, of the features in the first evaluation, in bytes.
        self._sizes: dict[str, dict[tuple[Hashable, ...], int]] = {}

    @property
    def site(self) -> AbstractSite:
        return SITES[self.name]

    def expect(self, guider: Any, conds: dict[str, Any], shapes: Sequence[Sequence[int]],
               noise_shape: Sequence[int]) -> int:
        """Goes to the first site whose cache can be beside the model. Returns how many bytes it is expected to take."""
        needed = {site: self.room.needed(expected_features(guider, conds, shapes, self.family, site))
                  for site in _sites_from(self.name, self.network, self.family)}
        run = self.room.run(noise_shape)
        self._settle(needed, lambda size: self.room.could_be(size, run), "can be there beside the model")
        return needed[self.name]

    @contextmanager
    def measuring(self, model: nn.Module, family: Family, streams: Sequence[Hashable]) -> Iterator[None]:
        """While open, a call notes how large its features are, at this site and at those that may have to serve
        instead."""
        def noting(site: str) -> Callable[[str, Tensor], None]:
            sizes = self._sizes.setdefault(site, {})
            return lambda name, feature: sizes.update({(name, *streams): feature.nbytes})

        with ExitStack() as stack:
            for site in _sites_from(self.name, model, family):
                stack.enter_context(SITES[site].recording(model, family, noting(site)))
            yield

    def fit(self, input_shape: Sequence[int]) -> bool:
        """After the first evaluation, which is not forecast from yet: makes room for its features, or takes them where
        they are fewer, or come at all. Whether that is another site."""
        if not self._sizes:
            return False
        expected, run = self.name, self.room.run(input_shape)
        if not self._came(expected):
            self.give_way(expected)
        needed = {site: self.room.needed(sum(sizes.values()))
                  for site, sizes in self._sizes.items() if self._came(site)}
        self._settle(needed, lambda size: self.room.is_free(size, run), "is free")
        self._sizes.clear()
        self.measured = True
        return self.name != expected

    def give_way(self, site: str, why: str = DID_NOT_RUN) -> None:
        """Goes to the next site, if this one is still that of the run."""
        if self.name != site:
            return
        after = [*filter(self._came, _sites_from(site, self.network, self.family)[1:])]
        if not after:
            self._warn(f"no feature can be recorded: {why}")
            return
        self.name = after[0]
        self._sizes.pop(site, None)
        self._warn(f"features are taken at site {self.name} instead of {site}: {why}")

    def _came(self, site: str) -> bool:
        """Whether all its features came in the first evaluation, as far as that is known."""
        sizes = self._sizes.get(site)
        return sizes is None or {name for name, *_ in sizes} >= {*SITES[site].features(self.network, self.family)}

    def _settle(self, needed: dict[str, int], fits: Callable[[int], bool], limit: str) -> None:
        """Goes to the first site where the cache fits, or else to the last."""
        wanted = self.name
        for site, size in needed.items():
            self.name = site
            if fits(size):
                break
        if self.name != wanted:
            self._warn(f"features are taken at site {self.name} instead of {wanted}: there the cache would take "
                       f"{needed[wanted] / 1e6:.1f} MB, more than {limit}")


def _available(wanted: str, network: nn.Module, family: Family, model_options: dict[str, Any]) -> tuple[str, str]:
    """The wanted site, or the next one that this model has, and then why."""
    compiled = compiled_parts(model_options)
    if "diffusion_model" in compiled and wanted != "output":
        return "output", "inside a model compiled with torch.compile features can't be recorded"
    if compiled and wanted == "module":
        site = _sites_from("hidden", network, family)[0]
        return site, "inside blocks compiled with torch.compile features can't be recorded"
    site = _sites_from(wanted, network, family)[0]
    return site, "" if site == wanted else _why_not(family)


def compiled_parts(model_options: dict[str, Any]) -> set[str]:
    """Paths within ComfyUI's BaseModel of what torch.compile has compiled; where that can't be told, all of it.

    ComfyUI's wrapper for it holds them; its node and others' (KJNodes, Wan's) are made of it.
    """
    if COMPILED not in model_options:
        return set()
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
    found: set[str] = set()
    for wrapper in wrappers.get("torch.compile", ()):
        held = [cell.cell_contents for cell in getattr(wrapper, "__closure__", None) or ()]
        found.update(*(part for part in held if isinstance(part, dict)))
    return found if found and all(isinstance(path, str) for path in found) else {"diffusion_model"}


def _why_not(family: Family) -> str:
    if family.at_output:
        return f"{family.name}: {family.at_output}"
    if not family.lacks:
        return f"{family.name} is not known well enough for it"
    return f"this {family.name} has no {family.lacks[0]}: it is another pack's, or a newer ComfyUI's, and not known"


def _sites_from(site: str, network: nn.Module, family: Family) -> list[str]:
    """The site, if the model has it, and those that may have to serve in its place; output is always one."""
    return [other for other in FALLBACK[FALLBACK.index(site):] if SITES[other].features(network, family)]
