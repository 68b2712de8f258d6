"""Speed of image confounding: training beside an equal network in PyTorch, and what a stream takes.

PyTorch trains one network per fold, one after another; ours trains those of all folds in one step.
Both see the same batches of unaugmented images, without dropout, in float32, on all cores.
"""

import resource
import time
from typing import Any

import jax
import numpy as np

from benchmarks.harness import cores, interleaved, limits, say
from jaxcore.data.geo.keyed import Generated
from jaxcore.data.image_units import ImageUnits
from jaxcore.estimators.image_confounding.simulate import gaussian_fields
from jaxcore.models import vit
from jaxcore.train import OptimConfig, TrainConfig
from jaxcore.train.prepare import prepare
from jaxcore.train.tasks.propensity import PropensityTask

SIDE, FOLDS, BATCH = 35, 5, 64
CFG = vit.ViTConfig(patch_size=8, dropout=0.0, drop_path=0.0)


def _task(images: Any, *, on_device: bool = True, batch: int = BATCH) -> PropensityTask:
    n = images.shape[0]
    fold, a = np.arange(n) % FOLDS, np.random.default_rng(0).integers(0, 2, n)
    units = ImageUnits(
        images=images,
        image=np.arange(n, dtype=np.int32),
        target=a[:, None].astype(np.float32),
        masks=np.stack([fold != f for f in range(FOLDS)]).astype(np.float32),
        mean=np.full(3, 127, np.float32),
        sd=np.full(3, 70, np.float32),
    )
    return PropensityTask(
        model="vit",
        network=CFG,
        units=units,
        numbers=tuple(range(FOLDS)),
        batch_size=batch,
        augment=False,
        label_smoothing=0.0,
        on_device=on_device,
    )


def training(smoke: bool) -> dict[str, Any]:
    """Images per second of one update of all folds, and how far PyTorch's network is from ours."""
    images = np.random.default_rng(1).integers(0, 255, (512, SIDE, SIDE, 3)).astype(np.uint8)
    task = _task(images)
    ready = prepare(task, TrainConfig(steps=1000, optim=OptimConfig(learning_rate=1e-4)))
    state = {"now": ready.initial_state()}
    batches = task.batches(0, 0)
    drawn = [next(batches) for _ in range(8)]
    turn = {"ours": 0, "theirs": 0}
    one = task.entry.join(*jax.tree.map(lambda x: x[0], (state["now"].params, {})))
    weights = vit.to_torch(one, CFG)
    rivals = [_Torch(weights) for _ in range(FOLDS)]
    pixels = ((images.astype(np.float32) - 127) / 70).transpose(0, 3, 1, 2).copy()
    x = pixels[:8]
    ours = np.asarray(vit.apply(one, x.transpose(0, 2, 3, 1), None, CFG))[:, 0]
    apart = float(np.abs(ours - rivals[0](x)).max())
    step = ready.step

    def we() -> Any:
        batch = drawn[turn["ours"] % len(drawn)]
        turn["ours"] += 1
        state["now"], metrics = step(state["now"], batch, ready.frozen)
        return metrics["loss"]

    def they() -> None:
        unit = drawn[turn["theirs"] % len(drawn)]["unit"]
        turn["theirs"] += 1
        for f, rival in enumerate(rivals):
            rows = unit[:, f]
            rival.update(pixels[rows], task.units.target[rows, 0])

    times = interleaved({"jaxcore": we, "pytorch": they}, 3 if smoke else 30, warm_up=2)
    flops = 3 * FOLDS * BATCH * _forward_flops() / 1e9
    for name, found in times.items():
        found["images_per_s"] = round(FOLDS * BATCH / found["median_s"])
        found["gflop_s"] = round(flops / found["median_s"], 1)
        say(f"training, {name}: {found['images_per_s']:,} images/s, {found['gflop_s']} GFLOP/s")
    ratio = times["pytorch"]["median_s"] / times["jaxcore"]["median_s"]
    return {
        **times,
        "over_pytorch": round(ratio, 2),
        "outputs_apart": apart,
        "network": f"ViT {CFG.width}, patches of {CFG.patch_size}, {FOLDS} folds, batch {BATCH}",
        **limits("matrix_product_gflop_s"),
    }


def _forward_flops() -> float:
    """Multiplications and additions of one image: patches, projections, attention, updates."""
    d, tokens = CFG.width, (SIDE // CFG.patch_size) ** 2 + 2
    layer = 2 * tokens * d * d * (4 + 3 * 3.5) + 4 * tokens**2 * d
    pool = 2 * d * d * (2 + 2 * tokens) + 4 * tokens * d
    return 2 * tokens * d * 3 * CFG.patch_size**2 + CFG.depth * layer + pool


def replications(smoke: bool) -> dict[str, Any]:
    """Replications per second of the paper's simulation with one filter of 8 pixels."""
    from jaxcore.estimators.image_confounding.filter_network import fit_filter, windows
    from jaxcore.estimators.image_confounding.simulate import assign, confounder

    images = gaussian_fields(jax.random.key(0), 500, size=32)
    seen, u = windows(images, 8), confounder(images, 8)
    steps = 3 if smoke else 300

    @jax.jit
    def one(key: Any) -> Any:
        s = assign(key, u)
        return fit_filter(key, seen, s.A, steps=steps).propensity

    jax.block_until_ready(one(jax.random.key(0)))
    start, count = time.perf_counter(), 2 if smoke else 10
    for r in range(count):
        jax.block_until_ready(one(jax.random.key(r)))
    rate = count / (time.perf_counter() - start)
    say(f"simulation: {rate:.2f} replications/s")
    return {"per_s": round(rate, 3), "scenes": 500, "side": 32, "filter": 8, "steps": steps}


def memory(smoke: bool) -> dict[str, Any]:
    """Peak memory of this process while it trains on a million generated images of 64 x 64 x 3."""
    from jaxcore.train import fit
    from jaxcore.train.logging import Silent

    n = 10_000 if smoke else 1_000_000

    def images(rows: np.ndarray) -> np.ndarray:
        drawn = [np.random.default_rng(int(i)).bytes(64 * 64 * 3) for i in rows]
        return np.stack([np.frombuffer(one, np.uint8).reshape(64, 64, 3) for one in drawn])

    source = Generated(images, (n, 64, 64, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    import tempfile

    task = _task(source, on_device=False, batch=32)
    cfg = TrainConfig(steps=2 if smoke else 50, tensorboard=False)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # The evaluation would look at every image; here the stream is what is measured.
        fit(_Unjudged(**vars(task)), cfg, folder, reporter=Silent())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    say(f"a million images: {after:.0f} MB at most, {after - before:.0f} MB more than before")
    return {
        "images": n,
        "their_size_mb": round(n * 64 * 64 * 3 / 1e6),
        "peak_mb": round(after),
        "more_than_before_mb": round(after - before),
        "steps": cfg.steps,
        "seconds": round(time.perf_counter() - start, 1),
    }


class _Unjudged(PropensityTask):
    def evaluate(self, state: Any, frozen: Any) -> dict[str, float]:
        return {}

    def metric_names(self) -> tuple[str, ...]:
        return ()


class _Torch:
    """The same network in PyTorch, from the same weights, with Adam."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        import torch

        torch.set_num_threads(cores())
        self.torch = torch
        self.w = {
            name: torch.from_numpy(np.array(value)).requires_grad_()
            for name, value in weights.items()
        }
        self.adam = torch.optim.AdamW(list(self.w.values()), lr=1e-4, weight_decay=0.0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            return self._logits(self.torch.from_numpy(x)).numpy()

    def update(self, x: np.ndarray, a: np.ndarray) -> None:
        """One step of the optimiser."""
        functional = self.torch.nn.functional
        self.adam.zero_grad(set_to_none=True)
        logits = self._logits(self.torch.from_numpy(x))
        loss = functional.binary_cross_entropy_with_logits(logits, self.torch.from_numpy(a))
        loss.backward()
        self.adam.step()

    def _rms(self, x: Any, gain: Any) -> Any:
        return x * self.torch.rsqrt(1e-3 + x.square().mean(-1, keepdim=True)) * gain

    def _turned(self, x: Any) -> Any:
        half = x.shape[-1] // 2
        rate = 10000 ** (-self.torch.arange(half) * 2 / x.shape[-1])
        angle = self.torch.arange(x.shape[1])[:, None] * rate
        cos, sin = angle.cos(), angle.sin()
        a, b = x[..., :half], x[..., half:]
        return self.torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def _attended(self, q: Any, k: Any, v: Any, place: str) -> Any:
        w, heads = self.w, CFG.num_heads

        def split(x: Any, name: str) -> Any:
            x = x @ w[f"{place}.{name}"]
            return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)

        y = self.torch.nn.functional.scaled_dot_product_attention(
            split(q, "W_q"), split(k, "W_k"), split(v, "W_v")
        )
        return y.transpose(1, 2).reshape(q.shape) @ w[f"{place}.W_o"]

    def _logits(self, x: Any) -> Any:
        torch, w = self.torch, self.w
        functional = torch.nn.functional
        patches = functional.conv2d(
            x, w["PatchEmbedder.weight"], w["PatchEmbedder.bias"].reshape(-1), stride=CFG.patch_size
        )
        t = patches.flatten(2).transpose(1, 2)
        ends = [w[name].expand(len(t), 1, -1) for name in ("StartEmbed", "StopEmbed")]
        t = torch.cat([ends[0], t, ends[1]], 1)
        for layer in range(CFG.depth):
            at = f"layer.{layer}"
            z = self._rms(t, w[f"{at}.NormScaler1"])
            turned = self._turned(z)
            t = t + functional.softplus(w[f"{at}.RightWt1"]) * self._attended(turned, turned, z, at)
            z = self._rms(t, w[f"{at}.NormScaler2"])
            wide = functional.silu(z @ w[f"{at}.FFWide1.weight"].T)
            wide = wide * (z @ w[f"{at}.FFWide2.weight"].T)
            update = wide @ w[f"{at}.FFNarrow.weight"].T
            t = t + functional.softplus(w[f"{at}.RightWt2"]) * update
        pooled = self._attended(t[:, :1], self._turned(t), t, "Pool")[:, 0]
        pooled = pooled @ w["PoolProject.weight"].T + w["PoolProject.bias"]
        pooled = self._rms(pooled, w["FinalNormScaler"])
        return (pooled @ w["Dense1.weight"].T + w["Dense1.bias"])[:, 0]
