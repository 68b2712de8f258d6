"""What each route takes for granted, what was checked of it, and what no data can tell."""

from typing import Any

import numpy as np

from jaxcore.estimators.deconfound.diagnostics import LITTLE, WEAK

_COMMON = (
    "The outcome is the effect of the text plus that of the confounders plus noise: they add up.",
    "Rows do not change each other's outcomes (one text's clicks are not another's loss).",
)
_STRAIGHT = "Confounders act in straight lines (nonlinear_C=True lets them bend)."
_OF = {
    "iv": (
        "Instruments move the confounders.",
        "They change the outcome through the confounders alone, and are as good as random.",
        "They do not move the text. They do where confounders shape the text (an author who sees "
        "what is popular): the estimate is then the total effect; take route plm.",
        "For the rewards to be right too, nothing unrecorded moves both the text and the outcome, "
        "nor confounders and the outcome where the text depends on them: the effects may be right "
        "and the rewards still mislead; take route plm there.",
    ),
    "plm": (
        "Given the text, nothing unrecorded moves both the confounders and the outcome.",
        "The features hold what about the text moves the outcome and goes with the confounders.",
        "Confounders are no function of the text: something of them is left given the features.",
    ),
    "pliv": (
        "Given the text, the instruments move the confounders, and the outcome through them alone.",
        "The features hold what about the text moves the outcome and goes with the instruments.",
    ),
    "fe": (
        "Groups add the same to every outcome of theirs, whatever the text.",
        "Within a group, texts go with nothing unrecorded that moves the outcome.",
    ),
    "ols_c": (
        "Texts and confounders are independent. Where they go together (why one would adjust at "
        "all) this is biased: a baseline, no estimate.",
    ),
}
_NEVER = {
    "iv": "Whether the instruments act by another way, or through the text.",
    "plm": "Whether something unrecorded moves confounders and outcome; see the sensitivity.",
    "pliv": "Whether the instruments act by another way.",
    "fe": "Whether something that changes within groups moves text and outcome.",
    "ols_c": "Whether texts and confounders are independent.",
}


def assumptions_of(result: Any) -> str:
    """A report in plain text: assumed, checked, and not to be checked."""
    d = result.repetitions[0].diagnostics
    route = "pliv" if result.route == "plm" and "first_stage_F" in d else result.route
    assumed = (*_OF[route], *_COMMON)
    if len(result.centre) and not result.config.bends:
        assumed += (_STRAIGHT,)
    lines = [f"Route {result.route}: assumed", *(f"- {line}" for line in assumed)]
    checks = _checks(result, d)
    lines += ["Checked", *(f"- {line}" for line in checks)] if checks else []
    lines += ["No data can tell", f"- {_NEVER[route]}"]
    lines += ["- Whether rewards are right for texts unlike those of the logs."]
    return "\n".join(lines)


def _checks(result: Any, d: dict[str, Any]) -> list[str]:
    out = []
    if "first_stage_F" in d:
        f = float(np.min([*np.ravel(d["first_stage_F"]), d["cragg_donald"]]))
        verdict = "strong enough" if f >= WEAK else "weak"
        out.append(f"instruments are {verdict}: the smallest first-stage F is {f:.4g}")
    if "left" in d:
        share = float(np.min(d["left"]))
        verdict = "enough" if share >= LITTLE else "little"
        out.append(f"the text leaves {verdict} of every confounder: {100 * share:.3g} % or more")
    for kind in result.effects:
        out.append(f"{kind.name}: {len(kind.labels)} groups, taken as adding up")
    return out
