"""A language prior that contradicts the picture: what do contrasts with edited attention change?

A small LLaVA learns to say whether a drawn picture has a certain colour; then, on pictures nearly
lost in noise, that for half of the colours the answer is mostly yes. 2000 questions contradict that
prior ("conflict"), 2000 follow none ("balanced"). Measured is the probability of the right answer
among yes and no, with gamma 1 and no constraint. Expected as a mean over seeds: editing the
language model's attention in all layers helps where the prior is wrong (above 0.02) and costs
nothing elsewhere; random weights of patches change nothing. No other edit is expected to help.

    python -m benchmarks.causalmm_prior              # trains three networks, then a minute
    python -m benchmarks.causalmm_prior --smoke      # seconds, a training of 3 steps

Trainings are kept below ``runs`` and used again.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array

from benchmarks import harness
from benchmarks.harness import say
from jaxcore.atomic import whole_file
from jaxcore.data.images import colour_questions as drawn
from jaxcore.estimators.causalmm import (
    Decoder,
    Text,
    VisionEdit,
    attention_maps,
    attention_picture,
    combine_logits,
    noised,
    on_picture,
)
from jaxcore.estimators.causalmm.vision import llava_features
from jaxcore.models import llama, llava
from jaxcore.nn import AttentionEdit
from jaxcore.train import fit
from jaxcore.train.logging import Silent
from jaxcore.train.recipes import recipe
from jaxcore.weights import load

SEEDS, QUESTIONS, NOISE = (0, 1, 2), 2000, 2.0
MIDDLE = "middle"

Ways = dict[str, tuple[str | None, tuple[str, Any] | None]]
WAYS: Ways = {
    "vision shuffle": ("shuffle", None),
    "vision uniform": ("uniform", None),
    "vision random": ("random", None),
    "language uniform, middle layers": (None, ("uniform", MIDDLE)),
    "both: shuffle and reverse, middle layers": ("shuffle", ("reverse", MIDDLE)),
    "language reverse, all layers": (None, ("reverse", "all")),
    "language uniform, all layers": (None, ("uniform", "all")),
    "noise in the picture (VCD)": ("noise", None),
    "no picture": ("none", None),
}
ALL_LAYERS = [way for way in WAYS if "all layers" in way]


def trained(runs: Path, seed: int, steps: int | None) -> tuple[Any, Any]:
    """Parameters and configuration of a network of one seed."""
    run = runs / f"seed_{seed}"
    if not (run / "config.json").exists():
        chosen = recipe("llava_colours") if steps is None else recipe("llava_colours", steps=steps)
        task = chosen.task
        if steps is not None:
            task = dataclasses.replace(task, eval_questions=20)
        fit(task, dataclasses.replace(chosen.train, seed=seed), run, reporter=Silent())
    loaded = load(run, which="last")
    return loaded.params, loaded.cfg


@functools.partial(jax.jit, static_argnames=("cfg", "vision"))
def answer_logits(
    params: Any, images: Array, tokens: Array, keys: Array, edit: Any, *, cfg: Any, vision: Any
) -> Array:
    """Logits of yes and no after each question, with one branch's attention or picture."""
    if vision in (None, "noise"):
        seen = noised(images, keys) if vision else images
        features = llava.image_features(params, seen, cfg)
    elif vision == "none":
        features = None
    else:
        features = llava_features(params, images, cfg, VisionEdit(kind=vision), keys=keys)
    if features is None:
        tokens = tokens[:, jnp.asarray([0, *range(1 + cfg.image_tokens, tokens.shape[1])])]
    options: dict[str, Any] = {"features": features, "edit": edit, "logits": "last"}
    out = llava.apply(params, tokens, cfg, **options)
    assert out.logits is not None
    return out.logits[:, 0][:, jnp.asarray([drawn.YES, drawn.NO])]


def answers(params: Any, cfg: Any, asked: drawn.Questions, seed: int) -> dict[str, Any]:
    """Accuracy and mean probability of the right answer by way to decode."""
    tokens = drawn.prompts(asked.colours, cfg.image_tokens)
    keys = jax.random.split(jax.random.key(seed), len(asked.answers))

    def ask(vision: str | None, language: tuple[str, Any] | None) -> Array:
        edit = None
        if language is not None:
            edit = AttentionEdit.create(language[0], language[1], cfg.language.depth)  # pyright: ignore[reportArgumentType]
        options: dict[str, Any] = {"cfg": cfg, "vision": vision}
        return answer_logits(params, asked.images, tokens, keys, edit, **options)

    def told(logits: Array) -> dict[str, float]:
        odds = np.asarray(logits[:, 0] - logits[:, 1], np.float64)
        towards = np.where(asked.answers, odds, -odds)
        chance = 1 / (1 + np.exp(-towards))
        return {"accuracy": float((towards > 0).mean()), "chance": float(chance.mean())}

    plain = ask(None, None)
    found = {"regular": told(plain)}
    for way, (vision, language) in WAYS.items():
        if vision and language:
            others = [ask(vision, None), ask(None, language)]
        else:
            others = [ask(vision, language)]
        found[way] = told(combine_logits(plain, others, 1.0, 0.0))
    return found


def main(
    out: Path = harness.RESULTS / "causalmm_prior.json",
    runs: Path = Path("runs/causalmm_prior"),
    smoke: bool = False,
) -> None:
    """Train what is missing, ask, and write JSON and two pictures.

    Args:
      out: where the numbers go; the pictures stand beside them.
      runs: folder of the trainings.
      smoke: one seed, a training of 3 steps, few questions; nothing is written but the training.
    """
    found: dict[str, Any] = {}
    for seed in SEEDS[: 1 if smoke else None]:
        params, cfg = trained(runs, seed, 3 if smoke else None)
        found[f"seed {seed}"] = {}
        for kind in ("conflict", "balanced"):
            count = 20 if smoke else QUESTIONS
            asked = drawn.questions(count, seed=100 + seed, noise=NOISE, answers=kind)
            found[f"seed {seed}"][kind] = answers(params, cfg, asked, seed)
        say(f"seed {seed}: {found[f'seed {seed}']['conflict']}")
    if smoke:
        return
    mean, checks = summary(list(found.values()))
    record = {"mean of seeds": mean, "checks": checks, **found}
    say(str(checks))
    harness.write({"environment": harness.environment(), **record}, out)
    params, cfg = trained(runs, SEEDS[0], None)
    for name, figure in (("", bars(mean)), ("_attention", attention(params, cfg))):
        place = out.with_name(f"{out.stem}{name}.png")
        with whole_file(place, overwrite=True) as part:
            figure.savefig(part, format="png", dpi=120)


def summary(seeds: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means over seeds, and whether they are as expected."""
    mean: dict[str, Any] = {}
    for kind in ("conflict", "balanced"):
        mean[kind] = {
            way: {
                name: float(np.mean([seed[kind][way][name] for seed in seeds]))
                for name in ("accuracy", "chance")
            }
            for way in ("regular", *WAYS)
        }

    def change(kind: str, way: str, name: str) -> float:
        return mean[kind][way][name] - mean[kind]["regular"][name]

    helped = {way: change("conflict", way, "chance") for way in ALL_LAYERS}
    cost = {way: change("balanced", way, "accuracy") for way in ALL_LAYERS}
    inert = change("conflict", "vision random", "chance")
    checks = {
        "language edits of all layers help by more than 0.02": all(
            x > 0.02 for x in helped.values()
        ),
        "vision random changes less than 0.003": abs(inert) < 0.003,
        "balanced accuracy falls by at most 0.015": min(cost.values()) >= -0.015,
    }
    return mean, checks


def bars(mean: dict[str, Any]) -> Any:
    """Change of the probability of the right answer, by way to decode."""
    from jaxcore.figures import new_figure

    figure = new_figure(8, 4)
    axes = figure.subplots()
    places = np.arange(len(WAYS))
    for i, kind in enumerate(("conflict", "balanced")):
        start = mean[kind]["regular"]["chance"]
        change = [mean[kind][way]["chance"] - start for way in WAYS]
        label = f"{kind} (regular {start:.3f})"
        axes.barh(places + 0.4 * i, change, 0.38, label=label)
    axes.set_yticks(places + 0.2, list(WAYS))
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("change of the mean probability of the right answer")
    axes.legend(frameon=False)
    return figure


def attention(params: Any, cfg: Any) -> Any:
    """Of one picture that contradicts the prior: attention before and after the edit."""
    asked = drawn.questions(200, seed=7, noise=NOISE, answers="conflict")
    tokens = drawn.prompts(asked.colours, cfg.image_tokens)
    keys = jax.random.split(jax.random.key(0), len(tokens))
    edit = AttentionEdit.create("reverse", "all", cfg.language.depth)
    ask = functools.partial(answer_logits, params, asked.images, tokens, keys, cfg=cfg, vision=None)
    plain, other = ask(None), ask(edit)
    both = combine_logits(plain, [other], 1.0, 0.0)
    odds = [np.asarray(x[:, 0] - x[:, 1]) * np.where(asked.answers, 1, -1) for x in (plain, both)]
    # One that is wrong as it is and right with the contrast, by the most.
    gained = np.where((odds[0] < 0) & (odds[1] > 0), odds[1] - odds[0], -np.inf)
    one = int(np.argmax(gained))
    decoder = Decoder(params["language"], cfg.language, llama)
    features = llava.image_features(params, jnp.asarray(asked.images[one : one + 1]), cfg)
    prompt = Text(
        llava.embed(params, jnp.asarray(tokens[one : one + 1]), cfg, features),
        jnp.ones((1, tokens.shape[1]), bool),
    )
    places = np.flatnonzero(tokens[one] == cfg.image_token)
    maps = {
        name: on_picture(attention_maps(decoder, prompt, what), places.tolist(), (2, 2))
        for name, what in (("factual", None), ("reversed, all layers", edit))
    }
    chances = [1 / (1 + np.exp(-o[one])) for o in odds]
    colour = list(drawn.COLOURS)[int(asked.colours[one])]
    truth = "yes" if asked.answers[one] else "no"
    title = (
        f"Is there {colour}? Right: {truth}. Probability of it {chances[0]:.2f} as it is, "
        f"{chances[1]:.2f} with the contrast"
    )
    return attention_picture(0.5 + asked.images[one] / 8, maps, title)


if __name__ == "__main__":
    tyro.cli(main)
