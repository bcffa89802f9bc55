"""MiniMax Music 3."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="MiniMax Music 3",
    matches=of_class("comfy.ldm.minimax_music.dit.MiniMaxMusic3DiT"),
    at_output="it makes a long piece window by window within one call, so that its head has no one hidden state",
)
