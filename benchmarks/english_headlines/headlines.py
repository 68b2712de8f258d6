"""Headlines of templates, logs of them, and what any text truly does by its words."""

import functools
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.data.logs import bag_of_words, read_logs, write_rewards
from jaxcore.estimators.deconfound import Deconfound
from jaxcore.estimators.deconfound.simulate import (
    OBJECTS,
    SUBJECTS,
    TOPICS,
    VERBS,
    HeadlineDesign,
    entangled_headlines,
)

DESIGN = HeadlineDesign()
PROMPTS = tuple(f"{topic.capitalize()}:" for topic in TOPICS)
SIGNS = {
    "a": ("data show", "experts say", "records show", "studies find"),
    "e": ("today", "tonight", "this week", "right now"),
    "s": ("shocking", "stunning", "unreal", "insane"),
}
"""Words that carry a feature: a is masked, e entangled, s spurious, as in the simulated world."""
TEMPLATES = (
    "{s}{who} {does} the {what}{e}{a}",
    "{s}the {what} {done} by {who}{e}{a}",
    "{s}why {who} {does} the {what}{e}{a}",
    "{s}{who}{e} {does} the {what}{a}",
)
_FORMS = {"a": ", {}", "e": " {}", "s": "{}: "}


def headline(template: str, who: str, verb: str, what: str, signs: Sequence[str | None]) -> str:
    """A headline with the signs of a, e and s that are not None.

    >>> headline(TEMPLATES[0], "voters", "reject", "plan", (None, "tonight", "shocking"))
    'Shocking: voters reject the plan tonight'
    """
    done = verb + ("d" if verb.endswith("e") else "ed")
    own = zip(_FORMS.items(), signs, strict=True)
    slots = {name: form.format(sign) if sign else "" for (name, form), sign in own}
    text = template.format(who=who, does=verb, done=done, what=what, **slots)
    return text[0].upper() + text[1:]


@functools.cache
def grammar() -> frozenset[str]:
    """All headlines that the templates can write."""
    signs = list(itertools.product(*((None, *words) for words in SIGNS.values())))
    frames = itertools.product(TEMPLATES, SUBJECTS, VERBS, OBJECTS)
    return frozenset(headline(*frame, own) for frame in frames for own in signs)


def features(text: str) -> list[float]:
    """Whether any text, of a template or not, has a sign of a, of e and of s.

    >>> features("Unreal: pilots praise the idea, experts say")
    [1.0, 0.0, 1.0]
    """
    forms = (rf"\b(?:{'|'.join(words)})\b" for words in SIGNS.values())
    return [float(re.search(form, text, re.IGNORECASE) is not None) for form in forms]


def write_logs(path: Path, rows: int, seed: int) -> None:
    """Logs as users have them, and what each text truly does ("worth") for the oracle."""
    logs, rng = entangled_headlines(rows, seed=seed, design=DESIGN), np.random.default_rng(seed)
    kinds, lines = (TEMPLATES, SUBJECTS, VERBS, OBJECTS), []
    for i, has in enumerate(logs.features):
        own = zip(SIGNS.values(), has, strict=True)
        signs = [str(rng.choice(words)) if there else None for words, there in own]
        prompt = str(rng.choice(PROMPTS))
        template, who, verb, what = (str(rng.choice(kind)) for kind in kinds)
        line = {
            "prompt": prompt,
            "text": " " + headline(template, who, verb, what, signs),
            "outcome": float(logs.Y[i]),
            "worth": float(logs.tau[i]),
            "confounders": {"prominence": float(logs.C[i])},
            "instruments": {"draw": float(logs.Z[i])},
        }
        lines.append(json.dumps(line) + "\n")
    path.write_text("".join(lines))


def adjust(source: Path, output: Path) -> dict[str, Any]:
    """Write the rewards of the route iv.

    Returns:
      What each route finds of the confounder, and what features are worth by the outcome and by
      the rewards of each route.
    """
    logs = read_logs(source)
    y, c = logs.outcome, logs.matrix("confounders")
    fits = {
        "ols_c": Deconfound(route="ols_c").fit(y, c),
        "iv": Deconfound(route="iv").fit(y, c, instruments=logs.matrix("instruments")),
        "plm": Deconfound(route="plm", ridge=1.0).fit(y, c, features=bag_of_words(logs.texts)),
    }
    write_rewards(source, output, fits["iv"].adjusted_reward, overwrite=True)
    targets = {"naive": y} | {name: np.asarray(f.adjusted_reward) for name, f in fits.items()}
    design = np.array([[1.0, *features(text)] for text in logs.texts])
    worth = {name: np.linalg.lstsq(design, t, rcond=None)[0][1:] for name, t in targets.items()}
    return {
        "delta": {n: {"delta": float(f.delta[0]), "se": float(f.se[0])} for n, f in fits.items()},
        "effects": {n: dict(zip(SIGNS, map(float, w), strict=True)) for n, w in worth.items()},
    }


def judged(texts: Sequence[str]) -> dict[str, Any]:
    """What texts truly do, what they have, and how many are headlines of the templates."""
    has = np.array([features(text) for text in texts])
    tau, valid = has @ np.array(DESIGN.effects), np.array([text in grammar() for text in texts])
    return {
        "J": float(tau.mean()),
        "J_se": float(tau.std(ddof=1) / len(tau) ** 0.5),
        "J_valid": float(tau[valid].mean()) if valid.any() else None,
        "validity": float(valid.mean()),
        **{f"P({name})": float(share) for name, share in zip(SIGNS, has.mean(axis=0), strict=True)},
        "distinct": len(set(texts)) / len(texts),
        "texts": list(texts[:: max(1, len(texts) // 8)]),
    }
