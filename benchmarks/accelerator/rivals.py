"""The same networks in PyTorch: eager, channels last, half precision, compiled."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from benchmarks.accelerator.measure import Record, timed
from benchmarks.accelerator.networks import NETWORKS, Pass

ROWS = {  # name -> channels last, half precision, compiled; the slow ones last
    "torch f32": (False, False, False),
    "torch f32 channels_last": (True, False, False),
    "torch bf16": (False, True, False),
    "torch bf16 channels_last": (True, True, False),
    "torch.compile f32": (False, False, True),
    "torch.compile bf16": (False, True, True),
}


def build(name: str, cfg: Any) -> Any:
    """The network of that configuration."""
    if name == "dea_net":
        from benchmarks.dea_net_torch import DEANet

        return DEANet(cfg.base_dim, cfg.depths)
    if name == "sunet":
        from benchmarks.sunet_torch import SUNet

        return SUNet(cfg)
    if name == "rddm":
        from benchmarks.rddm import Rival

        return Rival(cfg).nets["pytorch"]
    from benchmarks.restoration import torch_restormer

    return torch_restormer(cfg).nets["pytorch"]


def network(record: Record, name: str, which: Pass, smoke: bool, fast: bool) -> None:
    """One pass in every form, as it stands or compiled; float32 products in TF32, as in ours."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    chosen = NETWORKS[name]
    if smoke:
        torch.set_num_threads(1)
    net = build(name, chosen.config(which, "float32", smoke)).eval().to(device)
    tensors = [
        torch.from_numpy(a).permute(0, 3, 1, 2).contiguous() if a.ndim == 4 else torch.from_numpy(a)
        for a in chosen.arrays(which, smoke)
    ]
    tensors = [tensor.to(device) for tensor in tensors]

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def run(row: str) -> None:
        last, half, _ = ROWS[row]
        layout = torch.channels_last if last else torch.contiguous_format
        net.to(memory_format=layout)
        given = [t.contiguous(memory_format=layout) if t.ndim == 4 else t for t in tensors]
        model = torch.compile(net) if fast else net
        call = (
            forward(torch, model, given) if which == "forward" else step(torch, net, model, given)
        )
        facts: dict[str, Any] = {"batch": list(tensors[0].shape)}
        if half:
            call = autocast(torch, device, call)
        with record.compiling(row):
            start = time.perf_counter()
            wait(call())
            facts["first_call_s"] = round(time.perf_counter() - start, 2)
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with record.timing(row):
            facts |= timed(call, wait)
        if device == "cuda":
            facts["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
            net.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        record.add(row, **facts)

    for row, (_, _, compiles) in ROWS.items():
        if compiles == fast:
            record.attempt(row, lambda row=row: run(row))


def forward(torch: Any, model: Any, given: list[Any]) -> Callable[[], Any]:
    """One call without gradients."""

    def call() -> Any:
        with torch.inference_mode():
            return model(*given)

    return call


def step(torch: Any, net: Any, model: Any, given: list[Any]) -> Callable[[], Any]:
    """Loss and all gradients."""
    *inputs, clean = given

    def call() -> Any:
        net.zero_grad(set_to_none=True)
        value = (model(*inputs).float() - clean).abs().mean()
        value.backward()
        return value

    return call


def autocast(torch: Any, device: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """The same in bfloat16, weights kept in float32."""

    def inside() -> Any:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.autocast(device, dtype=torch.bfloat16))
            return call()

    return inside
