"""The same networks in PyTorch: eager, channels last, half precision, compiled."""

import contextlib
import time
from collections.abc import Callable
from contextlib import nullcontext
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
    if name == "llama":
        return _llama(cfg)
    from benchmarks.restoration import torch_restormer

    return torch_restormer(cfg).nets["pytorch"]


def _llama(cfg: Any) -> Any:
    """The decoder of transformers, as a function to logits."""
    import torch
    import transformers

    from benchmarks.language import their_config

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformers.LlamaForCausalLM(their_config(cfg))

        def forward(self, tokens: Any) -> Any:
            return self.net(tokens, use_cache=False).logits

    return Logits()


def limit_memory(share: float) -> None:
    """Take no more than that share of the card."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def network(record: Record, name: str, which: Pass, smoke: bool, fast: str | None) -> None:
    """One pass in every form as it stands, or compiled in the type ``fast``.

    Float32 products are in TF32, as in ours. All forms are called once before the first is timed.
    """
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
    model = net if fast is None else torch.compile(net)

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def free() -> None:
        net.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def prepare(row: str) -> Callable[[], Any]:
        free()
        last, half, _ = ROWS[row]
        layout = torch.channels_last if last else torch.contiguous_format
        net.to(memory_format=layout)
        given = [t.contiguous(memory_format=layout) if t.ndim == 4 else t for t in tensors]
        call = (
            forward(torch, model, given) if which == "forward" else step(torch, net, model, given)
        )
        return autocast(torch, device, call) if half else call

    def first(row: str) -> None:
        with record.filling() if fast is None else nullcontext(), record.compiling(row):
            call, start = prepare(row), time.perf_counter()
            wait(call())
            taken = round(time.perf_counter() - start, 2)
            free()
        record.add(row, batch=list(tensors[0].shape), first_call_s=taken)

    def time_it(row: str) -> None:
        with record.timing(row):
            facts = timed(prepare(row), wait)
        if device == "cuda":
            facts["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
        free()
        record.add(row, **facts)

    rows = [row for row, form in ROWS.items() if _wanted(form, fast)]
    for run in (first, time_it):
        for row in rows:
            if "failed" not in record.found.get(row, {}):
                record.attempt(row, lambda run=run, row=row: run(row))


def _wanted(form: tuple[bool, bool, bool], fast: str | None) -> bool:
    _, half, compiles = form
    return compiles == (fast is not None) and (fast is None or half == (fast == "bfloat16"))


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
