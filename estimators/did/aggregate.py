"""Averages of effects by group and time: overall, by group, by time, by time since treatment."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.did.staggered import Cell, GroupTime
from jaxcore.estimators.estimate import Estimate, scope_of
from jaxcore.estimators.units import INDEPENDENT, Units

AGGREGATIONS = ("simple", "group", "time", "event")


def aggregate(effects: GroupTime, by: str = "event", *, known_shares: bool = False) -> Estimate:
    """Weighted averages of the cells, the overall one last; groups count by their size.

    Args:
      effects: of `group_time`.
      by: "simple" (one average of all treated cells), "group" (mean over the periods of each group;
        overall: groups by their size), "time" (each period; overall: their mean) or "event" (each
        number of periods since treatment, negative ones before it; overall: mean from zero on).
      known_shares: take the groups' shares in the sample as known; their error is else part of the
        standard errors, as in the R package ``did``. DoubleML takes them as known.

    References:
      Callaway and Sant'Anna (2021), section 3.
    """
    if by not in AGGREGATIONS:
        raise UserError(f"Expected one of {', '.join(AGGREGATIONS)}, found {by!r}.")
    cells, e = effects.cells, effects.estimate
    if not any(cell.treated for cell in cells):
        raise UserError("Expected cells with treatment to average over, found none.")
    groups = sorted({cell.group for cell in cells})
    belongs = effects.first[:, None] == np.asarray(groups)[None]
    names, mix = _mixture(cells, groups, by)
    with scope_of(e.psi):
        theta, psi = jnp.asarray(e.theta), jnp.asarray(e.psi)
        w = jnp.asarray(effects.weights, psi.dtype)[:, None]
        shares = jnp.mean(w * jnp.asarray(belongs, psi.dtype), axis=0)
        out = psi @ mix(shares).T
        if not known_shares:
            slope = jax.jacfwd(lambda p: mix(p) @ theta)(shares)
            out = out + w * (jnp.asarray(belongs, psi.dtype) - shares[None]) @ slope.T
        units = INDEPENDENT if e.clusters is None else Units(clusters=e.clusters)
        found = Estimate.from_psi(
            mix(shares) @ theta,
            out,
            units,
            names=names,
            estimator=f"difference in differences, {by} averages",
            notices=e.notices,
        )
    return found.on_host()


def _mixture(
    cells: tuple[Cell, ...], groups: list[float], by: str
) -> tuple[tuple[str, ...], Callable[[Float[Array, " g"]], Float[Array, "r c"]]]:
    """Names of the averages, and the weights of the cells in each, from the groups' shares."""
    treated = np.array([cell.treated for cell in cells])
    group = np.array([groups.index(cell.group) for cell in cells])
    if by == "simple":
        kinds = {"overall": treated}
    elif by == "group":
        kinds = {f"group {g:g}": treated & (group == j) for j, g in enumerate(groups)}
    elif by == "time":
        at = np.array([cell.time for cell in cells])
        kinds = {f"time {t:g}": treated & (at == t) for t in sorted(set(at))}
    else:
        since = np.array([cell.time - cell.group for cell in cells])
        kinds = {f"event {s:g}": since == s for s in sorted(set(since))}
    kinds = {name: which for name, which in kinds.items() if which.any()}
    picked = np.stack(list(kinds.values())).astype(np.float64)
    if by == "simple":
        names, after = tuple(kinds), np.zeros(0)
    else:
        names = (*kinds, "overall")
        after = np.array([bool(which[~treated].sum() == 0) for which in kinds.values()], float)
    own = [group[which][0] for which in kinds.values()]

    def mix(shares: Float[Array, " g"]) -> Float[Array, "r c"]:
        size = jnp.ones(len(cells), shares.dtype) if by == "group" else shares[group]
        rows = jnp.asarray(picked, shares.dtype) * size[None]
        rows = rows / jnp.sum(rows, axis=1, keepdims=True)
        if by == "simple":
            return rows
        top = shares[np.array(own)] if by == "group" else jnp.asarray(after, shares.dtype)
        return jnp.concatenate([rows, (top / jnp.sum(top))[None] @ rows])

    return names, mix
