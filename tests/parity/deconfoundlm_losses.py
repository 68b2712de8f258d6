"""Checks of the golden losses of deconfoundlm: in float64 in full, and again in plain float32."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.train.losses import advantages, policy, ppo, preference, reward
from tests.parity.golden import Golden


class _Check:
    """One file in one precision."""

    def __init__(self, path: Path, double: bool):
        self.file, self.double = Golden(path), double
        self.config = self.file.config
        self.x = {k: jnp.asarray(v, float) for k, v in self.file.group("in").items()}

    def close(self, what: str, ours) -> None:
        """Within a share of the largest entry; gradients of zero are zero."""
        golden, ours = self.file[what], np.asarray(ours)
        assert ours.shape == golden.shape, f"{what}: {ours.shape}, expected {golden.shape}"
        value = what.startswith("out/")
        share, least = (1e-10 if value else 1e-9, 1e-11) if self.double else (1e-5, 2e-6)
        bound = share * np.max(np.abs(golden)) + (least if value else 0)
        assert np.max(np.abs(ours - golden)) <= bound, f"{what}: {ours} against {golden}"
        assert np.all(np.isfinite(ours)), what

    def with_gradient(self, name: str, loss: Callable, at: jax.Array, grad: str = "") -> None:
        """A loss, and its gradient where one is stored."""
        value, gradient = jax.jit(jax.value_and_grad(loss))(at)
        self.close(f"out/{name}", value)
        if (stored := grad or f"grad/{name}") in self.file:
            self.close(stored, gradient)


def _in_both(check: Callable[[_Check], None], path: Path) -> None:
    """Check in float64, and again in float32."""
    for double in (True, False):
        with jax.enable_x64(True) if double else contextlib.nullcontext():
            check(_Check(path, double))


def _dpo(c: _Check) -> None:
    named = {}
    for name in c.file.group("out"):
        loss, divergence, ld = name.split("|")
        named[name] = preference.Preference(
            loss=loss,
            beta=c.config["beta"],
            label_smoothing=c.config["label_smoothing"],
            divergence=divergence,
            alpha=c.config["alpha"],
            ld_alpha=c.config["ld_alpha"] if ld == "ld" else None,
            discopop_tau=c.config["discopop_tau"],
        )

    def one(lp, settings):
        found = preference.preference_loss(lp, c.x["ref_logps"], c.x["mask"], settings)
        return found.mean.value(), found.per_pair

    def every(lp):
        return {n: jax.value_and_grad(one, has_aux=True)(lp, s) for n, s in named.items()}

    for name, ((_, per_pair), gradient) in jax.jit(every)(c.x["policy_logps"]).items():
        c.close(f"out/{name}", per_pair)
        c.close(f"grad/{name}", gradient)


def _reward(c: _Check) -> None:
    x, cfg = c.x, c.config
    soft = reward.soft_label(*jnp.split(x["y"], 2), cfg["soft_tau"])
    of_pairs = {
        "bt": reward.reward_bt,
        "bt_margin": partial(reward.reward_bt, margin=x["margin"]),
        "bt_center": partial(reward.reward_bt, centering=cfg["center"]),
        "bt_soft": partial(reward.reward_soft, probability=soft),
    }
    of_scores = {
        "mse": {},
        "wmse": {"weights": x["sample_weight"]},
        "huber": {"loss": "huber", "delta": cfg["huber_delta"]},
    }

    def losses(w, h):
        r = h @ w[0]
        out = {n: f(*jnp.split(r, 2)).value() for n, f in of_pairs.items()}
        out |= {
            n: reward.reward_regression(r, x["y"], **more).value() for n, more in of_scores.items()
        }
        for form in ("release", "plain"):
            out[f"odin_{form}"] = reward.odin(h, w, x["confounder"], form=form, **cfg["odin"])
        return out

    # reverse mode once per loss, all in one program
    def every(w, h):
        value, back = jax.vjp(losses, w, h)
        one = {n: {m: jnp.asarray(float(m == n)) for m in value} for n in value}
        return value, {n: back(one[n]) for n in value}

    value, gradients = jax.jit(every)(x["w"], x["x"])
    for name, (w, h) in gradients.items():
        c.close(f"out/{name}", value[name])
        c.close(f"grad/{name}/w", w)
        c.close(f"grad/{name}/x", h)


def _grpo(c: _Check) -> None:
    x, cfg = c.x, c.config
    r = x["rewards"]
    found = {
        "group_1e-4": advantages.group(r),
        "group_1e-6": advantages.group(r, eps=1e-6),
        "none": advantages.group(r, scale="none"),
        "batch_1e-4": advantages.group(r, scale="batch"),
        "rloo": advantages.rloo(r),
        "rloo_normalized": advantages.rloo(r, normalize=True),
    }
    for name, a in found.items():
        c.close(f"out/adv_{name}", a.reshape(-1))
    lp, old, ref, mask = x["logps"], x["old_logps"], x["ref_logps"], x["mask"]
    for kind in ("k1", "k2", "k3"):
        c.close(f"out/kl_{kind}", policy.kl_estimator(lp, ref, mask, kind))
    a, a_rloo = found["group_1e-4"].reshape(-1), found["rloo"].reshape(-1)
    clip = {"eps_low": cfg["eps_low"], "eps_high": cfg["eps_high"]}
    usual = clip | {"beta": cfg["beta"], "cispo_max": cfg["cispo_eps_max"]}
    surrogates = {kind: {"kind": kind} for kind in policy.KINDS}
    surrogates |= {"grpo_nokl": {"beta": 0.0}, "grpo_delta2": {"delta": 2.0}}

    def surrogate(lp, more):
        settings = policy.Surrogate(**(usual | more))
        found = policy.policy_loss(
            lp, x["old_logps"], a, x["mask"], settings, reference=x["ref_logps"]
        )
        return found.mean.value()

    losses = {n: partial(surrogate, more=more) for n, more in surrogates.items()}
    losses["rloo"] = lambda lp: policy.rloo_loss(lp, old, a_rloo, mask, **clip).value()
    losses["reinforce"] = lambda lp: policy.reinforce_loss(lp, a_rloo, mask).value()
    every = {n: jax.value_and_grad(loss) for n, loss in losses.items()}
    computed = jax.jit(lambda lp: {n: f(lp) for n, f in every.items()})(lp)
    for name, (value, gradient) in computed.items():
        c.close(f"out/loss_{name}", value)
        c.close(f"grad/loss_{name}", gradient)


def _ppo(c: _Check) -> None:
    x, cfg = c.x, c.config
    mask = x["mask"]
    rewards = ppo.shaped_rewards(
        x["score"], x["old_logps"], x["ref_logps"], mask, kl_coef=cfg["kl_coef"]
    )
    c.close("out/rewards", rewards)
    found = jax.jit(partial(ppo.gae, gamma=cfg["gamma"], lam=cfg["lam"]))(
        rewards, x["old_values"], mask
    )
    c.close("out/advantages", found.advantages)
    c.close("out/returns", found.returns)
    white = ppo.whiten(found.advantages, mask)
    c.close("out/whitened", white)

    def of_policy(lp, **more):
        inputs = (lp, x["old_logps"], white, x["mask"])
        return ppo.ppo_policy(*inputs, clip=cfg["clip"], **more).value()

    def of_values(v):
        inputs = (v, x["old_values"], found.returns, x["mask"])
        return ppo.ppo_value(*inputs, clip=cfg["value_clip"]).value()

    c.with_gradient("policy_loss", of_policy, x["logps"])
    dual = partial(of_policy, dual_clip=cfg["dual_clip"])
    c.with_gradient("policy_loss_dualclip", dual, x["logps"])
    c.with_gradient("value_loss", of_values, x["values"])


CHECKS = {
    "losses_dpo": partial(_in_both, _dpo),
    "losses_grpo": partial(_in_both, _grpo),
    "losses_ppo": partial(_in_both, _ppo),
    "losses_reward": partial(_in_both, _reward),
}
