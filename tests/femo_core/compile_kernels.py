"""Compiles the fused kernels to machine code for an A100 (sm_80) and an H100 (sm_90), and prints their names."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from femo_core.kernels import fused

KERNELS = {
    "_weighted_sums": (("stack", "feature", "out"), {"known": 2, "new": 1, "rows": 2, "limit": 65504.0}),
    "_add_gated": (("state", "gate", "stack", "out"), {"known": 2}),
    "_compare": (("feature", "stack"), {"known": 2}),
    "_is_nonfinite": (("feature",), {}),
}

for name, (features, constants) in KERNELS.items():
    kernel, constants = getattr(fused, name), {**constants, "block": fused.BLOCK}
    for capability in (80, 90):
        for dtype in ("fp32", "bf16", "fp16"):
            kinds = {**dict.fromkeys(features, f"*{dtype}"), "table": "*fp32", "squares": "*fp32", "found": "*i1",
                     **dict.fromkeys(constants, "constexpr")}
            signature = {argument: kinds.get(argument, "i32") for argument in kernel.arg_names}
            compiled = triton.compile(
                ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", capability, 32))
            assert compiled.asm["cubin"]
    print(name)
