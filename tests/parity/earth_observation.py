"""Checks of the golden files of earth_observation: its networks, salience, training and clusters.

Networks within 2e-5, gradients within 1e-4. float64 files within 1e-10 of the largest entry of
each array in float64, and again within 1e-4 of it in plain float32.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.data.geo.bands import moments
from jaxcore.estimators.image_confounding import heterogeneity as clusters
from jaxcore.estimators.image_confounding import salience
from jaxcore.models import convnet, vit
from jaxcore.models.convnet import cnn2023
from jaxcore.nn import capture
from jaxcore.train.optim import OptimConfig, make_optimiser
from jaxcore.train.schedules import ScheduleConfig, make_schedule
from jaxcore.train.tasks.binary import cross_entropy
from tests.parity.golden import Golden, close

NETWORK, GRADIENT = 2e-5, 1e-4
SINGLE, DOUBLE = 1e-4, 1e-10  # of the largest entry


class Check:
    """One golden file in one precision."""

    def __init__(self, path: Path, double: bool):
        self.file, self.double = Golden(path), double
        self.config, self.share = self.file.config, DOUBLE if double else SINGLE

    def __getitem__(self, key: str) -> jax.Array:
        return jnp.asarray(self.file[key], float)

    def near(self, what: str, ours: Any) -> None:
        golden = self.file[what]
        scale = float(np.max(np.abs(golden))) or 1.0
        close(ours, golden, atol=self.share * scale, rtol=0, what=what)


def both(path: Path) -> Iterator[Check]:
    for double in (True, False):
        with jax.enable_x64(True) if double else contextlib.nullcontext():
            yield Check(path, double)


def check_depthwise(path: Path) -> None:
    """The file ends with the features: it has no dense layer."""
    file = Golden(path)
    width = file.config["width"]
    head = {"Dense1.weight": np.zeros((1, width)), "Dense1.bias": np.zeros(1)}
    weights = file.group("param") | {k: v.astype(np.float32) for k, v in head.items()}
    cfg = convnet.config_from_state_dict(weights, stride=file.config["stride"])
    assert (cfg.depth, cfg.width, cfg.kernel_size, cfg.shrink) == tuple(
        file.config[name] for name in ("depth", "width", "kernel", "shrink")
    )
    params = convnet.from_torch(weights, cfg)
    forward = jax.jit(capture(convnet.features), static_argnames="cfg")
    found, seen = forward(params, file["in/image"], None, cfg=cfg)
    close(found, file["out/rep"], atol=NETWORK, rtol=0, what="rep")
    last = np.moveaxis(np.asarray(seen[f"Spatial_d{cfg.depth}/out"][0]), -1, 0)
    close(last, file["mid/last_map_unit0"], atol=NETWORK, rtol=0, what="last_map_unit0")
    random = jax.jit(convnet.random_features, static_argnames="cfg")
    found = random(params, file["in/image"], cfg=cfg)
    close(found, file["out/random_features"], atol=NETWORK, rtol=0, what="random_features")


def check_vit(path: Path) -> None:
    file = Golden(path)
    given, weights = file.config, file.group("param")
    cfg = vit.config_from_state_dict(weights)
    sizes = ("width", "depth", "channels", "patch", "nx", "dense_depth", "dense_width", "heads")
    ours = ("width", "depth", "in_channels", "patch_size", "covariates", "head_depth")
    ours += ("head_width", "num_heads")
    assert [given[name] for name in sizes] == [getattr(cfg, name) for name in ours]
    params, x = vit.from_torch(weights, cfg), file["in/x"]
    numbers = jax.jit(vit.apply, static_argnames="cfg")
    features = jax.jit(capture(vit.features), static_argnames="cfg")
    for mode, changes in (
        ("cross", {}),
        ("image", {"covariates": 0}),
        ("force", {"covariate_mode": "only"}),
    ):
        own = vit.ViTConfig.from_dict({**cfg.to_dict(), **changes})
        held = {k: v for k, v in params.items() if own.covariates or k != "XProj"}
        columns = x if own.covariates else None
        found, seen = features(held, file["in/image"], columns, cfg=own)
        close(found, file[f"out/rep_{mode}"], atol=NETWORK, rtol=0, what=f"rep_{mode}")
        found = jax.nn.sigmoid(numbers(held, file["in/image"], columns, cfg=own))
        close(found, file[f"out/prob_{mode}"], atol=NETWORK, rtol=0, what=f"prob_{mode}")
        if mode == "cross":
            tokens = [seen["encoder/tokens"], *seen["encoder/layer/out"]]
            for i, ours in enumerate(tokens):
                what = f"mid/tokens_{i}_unit0"
                close(ours[0], file[what], atol=NETWORK, rtol=NETWORK, what=what)
    _check_slopes(file, params, cfg)


def _check_slopes(file: Golden, params: Any, cfg: vit.ViTConfig) -> None:
    def slopes(images, x):
        def logit(images, x):
            return vit.apply(params, images, x, cfg)

        score = salience.log_odds(logit)
        found = salience.gradients(score, images, x)
        return {
            "salience_l2": salience.magnitude(found),
            "salience_mean": salience.direction(found),
            "grad_x": salience.covariate_gradients(score, images, x),
            "loss_smoothed_cross": jnp.mean(cross_entropy(logit(images, x), file["in/treatment"])),
        }

    for name, ours in jax.jit(slopes)(file["in/image"], file["in/x"]).items():
        close(ours, file[f"out/{name}"], atol=GRADIENT, rtol=0, what=name)


def check_salience(path: Path) -> None:
    """The network of 2023, and what its log-odds say of pixels."""
    for c in both(path):
        given, numbers = c.config, "float64" if c.double else "float32"
        weights = {k: v.astype(numbers) for k, v in c.file.group("param").items()}
        types = {"dtype": numbers, "param_dtype": numbers}
        cfg = cnn2023.config_from_state_dict(weights, **types)
        sizes = ("filters", "hidden", "low", "kernel", "depth", "nx")
        ours = (cfg.filters, cfg.hidden, cfg.low, cfg.kernel_size, cfg.depth, cfg.covariates)
        assert ours == tuple(given[name] for name in sizes)
        params = cnn2023.from_torch(weights, cfg)
        images, x = jnp.moveaxis(c["in/image"], 1, -1), c["in/x"]
        window = given["occlusion"]

        def all_maps(params, images, x, cfg=cfg, window=window, deviations=c["in/x_sd"]):
            def logit(images, x):
                return cnn2023.apply(params, images, x, cfg)

            score = salience.log_odds(logit)
            slopes = salience.gradients(score, images, x, rows=3)  # chunks of two
            lengths = salience.magnitude(slopes)
            before = salience.gradients(salience.probability(logit), images, x)
            return {
                "logit": logit(images, x)[:, 0],
                "prob": salience.probability(logit)(images, x),
                "grad_logit_image": jnp.moveaxis(slopes, -1, 1),
                "salience_l2": lengths,
                "salience_mean": salience.direction(slopes),
                "salience_plot": salience.for_display(lengths),
                "salience_2023": salience.coarse(salience.magnitude(before, shift=0.0)),
                "salience_x": salience.table_salience(score, images, x, deviations),
                "occlusion": salience.occlusion(score, images, x, **window),
            }

        found = jax.jit(all_maps)(params, images, x)
        inside = jax.jit(capture(cnn2023.apply), static_argnames="cfg")
        c.near("mid/pooled", inside(params, images, x, cfg=cfg)[1]["pooled"])
        assert set(found) == set(c.file.group("out"))
        for name, ours in found.items():
            c.near(f"out/{name}", ours)


def check_training(path: Path) -> None:
    for c in both(path):
        count = len(c.config["batch_sizes"])
        whole = moments([c.file[f"in/moment_batch_{i}"] for i in range(count)])
        c.near("out/norm_mean", np.asarray(whole.mean))
        c.near("out/norm_sd", np.asarray(whole.sd))
        steps, peak = c.config["n_sgd"], c.config["lr_max"]
        names = {"": ("causalimages", peak), "_2023": ("cnn2023", 5e-3)}
        names["_simulation"] = ("image_simulation", 1e-2)
        for ending, (name, top) in names.items():
            rate = make_schedule(ScheduleConfig(name=name), top, steps)
            golden = c.file[f"out/lr_schedule{ending}"]
            found = jax.vmap(rate)(jnp.arange(len(golden)))
            close(found, golden, atol=1e-9, rtol=0 if c.double else 1e-6, what=f"rate{ending}")
    _check_updates(Golden(path))


def _check_updates(file: Golden) -> None:
    """In float32, as the file was made."""
    cfg = OptimConfig(
        name="adabelief",
        learning_rate=file.config["lr_max"],
        schedule=ScheduleConfig(name="causalimages"),
        eps=1e-16,
        clip_adaptive=file.config["agc"],
    )
    tx = make_optimiser(cfg, file.config["n_sgd"])
    params = {k[3:]: jnp.asarray(v) for k, v in file.group("in").items() if k.startswith("p0_")}
    slopes = {name: jnp.asarray(file[f"in/grads_{name}"]) for name in params}

    def step(carry, slopes):
        params, state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(slopes, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        return (params, state), params

    with jax.numpy_dtype_promotion("standard"):
        start = params, tx.init(params)
    _, after = jax.lax.scan(step, start, slopes)
    for name, ours in after.items():
        close(ours, file[f"out/params_{name}"], atol=2e-6, rtol=0, what=f"params_{name}")


def check_clusters(path: Path) -> None:
    for c in both(path):
        logits, mean, raw = c["in/cluster_logits"], c["in/tau_mean"], c["in/tau_sd_raw"]
        noise = clusters.Noise(c["in/gumbel"], c["in/normal"])
        soft = c.config["temperature"]
        c.near("mid/relaxed_onehot", clusters.memberships(logits, noise.gumbel, soft))
        c.near("mid/tau_draw", clusters.cluster_effects(mean, raw, noise.normal))
        effects = clusters.unit_effects(logits, mean, raw, noise, soft)
        c.near("mid/tau_i", effects[..., None])
        rows = [c[f"in/{name}"][:, 0] for name in ("ey0", "treatment", "outcome")]
        for name, quirk in (("loss", False), ("loss_official_batch_sum_quirk", True)):
            found = clusters.losses(rows[0], effects, *rows[1:], batch_sum=quirk)
            c.near(f"out/{name}", jnp.mean(found))
        found = clusters.predict(logits, mean)
        c.near("out/prob", found.probabilities)
        c.near("out/expected_tau", found.expected)
        c.near("out/implied_ate", found.average)
        deviations = [c[f"in/{name}"] for name in ("sigma0", "sigma1", "outcome_sd")]
        c.near("out/cluster_total_sd", clusters.total_deviations(raw, *deviations))


def check_keys(path: Path) -> None:
    published = {
        vit.ViTConfig.causalimages(covariates=6): 130_049,
        vit.ViTConfig.tutorial(): 4_331_521,
    }
    for golden in json.loads(path.read_text()).values():
        weights = {k: np.broadcast_to(np.float32(0), shape) for k, shape in golden.items()}
        cfg = vit.config_from_state_dict(weights, start="official")
        params = vit.from_torch(weights, cfg)
        ours = {k: list(v.shape) for k, v in vit.to_torch(params, cfg).items()}
        assert ours == {k: v for k, v in golden.items() if not k.startswith("unused/")}
        if cfg in published:
            assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published[cfg]


CHECKS: dict[str, Callable[[Path], None]] = {
    "cnn_depthwise": check_depthwise,
    "cnn_salience": check_salience,
    "heterogeneity": check_clusters,
    "state_dict": check_keys,
    "training_pieces": check_training,
    "vit_propensity": check_vit,
}
