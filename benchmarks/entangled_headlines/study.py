"""One world of headlines: its logs, base, reward models and policies, each trained once."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.entangled_headlines import measure, training
from benchmarks.entangled_headlines.network import NETWORK, mean_states
from benchmarks.entangled_headlines.training import Data, Gradient, Stage, optimiser
from benchmarks.harness import say
from jaxcore.atomic import whole_file
from jaxcore.estimators.deconfound import Deconfound
from jaxcore.estimators.deconfound.simulate import (
    TOPICS,
    HeadlineDesign,
    entangled_headlines,
)
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.train import OptimConfig
from jaxcore.typing import Params

DESIGNS = {
    "entangled": HeadlineDesign(),
    # What the outcome on the confounder alone leaves flips the signs of e and s.
    "strong": HeadlineDesign(
        slopes=(-1.8, 1.8, 1.8), effects=(3.0, -0.5, -0.5), delta=6.0, c_u=0.95, c_z=0.3
    ),
}
PROTOTYPE = Gradient(algorithm="grpo", scaled=True)
MENDED = Gradient(algorithm="rloo", scaled=False)
GUARDED = Gradient(algorithm="rloo", scaled=False, supported=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is trained and measured."""

    rows: int = 20_000
    batch: int = 256
    base: int = 400  # updates, as all that follow
    scorer: int = 200
    policy: int = 100
    best: int = 120
    preferences: int = 150
    pairs: int = 128
    each: int = 256  # texts on every topic that a policy is measured on
    frames: int = 64  # of the factorial that a reward model is measured on

    @classmethod
    def smoke(cls) -> "Sizes":
        """Everything once."""
        few = dict.fromkeys(("base", "scorer", "policy", "best", "preferences"), 2)
        return cls(rows=200, batch=8, pairs=4, each=2, frames=2, **few)


class Scorer(NamedTuple):
    """A reward model: score times ``unit`` plus ``mean`` is in units of the outcome."""

    params: Params
    unit: float
    mean: float


@dataclasses.dataclass(frozen=True)
class World:
    """Everything of one design and one seed."""

    design: str
    seed: int
    sizes: Sizes
    folder: Path  # where trainings are kept, and found again
    cfg: LlamaConfig = NETWORK

    def key(self, name: str) -> Any:
        """A key of its own for everything drawn."""
        number = int.from_bytes(name.encode(), "little") % (2**31 - 1)
        return jax.random.fold_in(jax.random.key(self.seed), number)

    @functools.cached_property
    def logs(self) -> Any:
        """Texts, confounders, instruments, outcomes."""
        return entangled_headlines(self.sizes.rows, seed=self.seed, design=DESIGNS[self.design])

    @functools.cached_property
    def tokens(self) -> Any:
        """Texts on the device."""
        return jnp.asarray(self.logs.tokens)

    @functools.cached_property
    def base(self) -> Params:
        """Imitates all texts."""
        start = jax.jit(llama.init, static_argnums=1)(self.key("start"), self.cfg)
        stage = training.imitation(self.sizes.batch, self.cfg)
        data = {"tokens": self.tokens}
        return self._trained(
            "base", stage, start, data, optimiser(3e-3, warm=True), self.sizes.base
        )

    @functools.cached_property
    def floor(self) -> float:
        """Log-probability of a token below which a text is strange, see `measure`."""
        return measure.strangeness(self.base, self.key("floor"), self.sizes.each, self.cfg)

    # --- rewards --------------------------------------------------------------------------------

    @functools.cached_property
    def fits(self) -> dict[str, Any]:
        """What the confounder does, by route."""
        y, c, z = self.logs.Y, self.logs.C, self.logs.Z
        read = jax.jit(mean_states, static_argnums=2)
        parts = [read(self.base, part, self.cfg) for part in jnp.array_split(self.tokens, 10)]
        features = np.concatenate([np.asarray(part, np.float64) for part in parts])
        return {
            "ols_c": Deconfound(route="ols_c").fit(y, c),
            "iv": Deconfound(route="iv").fit(y, c, instruments=z),
            "plm": Deconfound(route="plm", ridge=1.0).fit(y, c, features=features),
        }

    def target(self, name: str) -> np.ndarray:
        """What a reward model is to foretell."""
        told = {"naive": self.logs.Y, "odin": self.logs.Y, "oracle": self.logs.tau}
        return told[name] if name in told else np.asarray(self.fits[name].adjusted_reward)

    def scorer(self, name: str) -> Scorer:
        """The reward model of one target; of the two heads of "odin" that of quality."""
        y = self.target(name)
        mean, unit = float(np.mean(y)), float(np.std(y))
        heads = 2 if name == "odin" else 1
        size = self.cfg.width
        drawn = jax.random.normal(self.key(f"heads {name}"), (heads, size)) / size**0.5
        stage = training.two_heads if name == "odin" else training.regression
        data = {
            "tokens": self.tokens,
            "target": jnp.asarray((y - mean) / unit, jnp.float32),
            "C": jnp.asarray(self.logs.C, jnp.float32),
        }
        optim = optimiser(1e-3, decay=0.01, warm=True)
        params = self._trained(
            f"scorer {name}",
            stage(self.sizes.batch, self.cfg),
            {"body": self.base, "heads": drawn},
            data,
            optim,
            self.sizes.scorer,
        )
        return Scorer({**params, "heads": params["heads"][:1]}, unit, mean)

    # --- policies -------------------------------------------------------------------------------

    def followed(self, name: str, how: Gradient = MENDED, beta: float = 0.2) -> Params:
        """Follows the reward model of one target."""
        data = {
            "scorer": self.scorer(name).params,
            "base": self.base,
            "beta": jnp.float32(beta),
            "floor": jnp.float32(self.floor),
        }
        return self._trained(
            f"{how.algorithm} {name} {how.scaled} {how.supported} {beta:g}",
            training.policy_gradient(how, self.cfg),
            self.base,
            data,
            optimiser(1e-4),
            self.sizes.policy,
        )

    def imitated(self, name: str, share: float = 0.2) -> Params:
        """Imitates the best texts by one target."""
        y = self.target(name)
        best = np.flatnonzero(y >= np.quantile(y, 1 - share))
        rows = np.resize(best, int(share * len(y)))  # one shape, whatever the ties
        return self._trained(
            f"best {name}",
            training.imitation(self.sizes.batch, self.cfg),
            self.base,
            {"tokens": self.tokens[rows]},
            optimiser(1e-3, warm=True),
            self.sizes.best,
        )

    def preferred(self, name: str) -> Params:
        """Prefers, of two texts on a topic, the better one by one target."""
        topic = self.logs.tokens[:, 1]
        counts = np.unique_counts(topic).counts
        if len(counts) != len(TOPICS):
            raise ValueError(f"Expected texts on {len(TOPICS)} topics, found {len(counts)}.")
        data = {
            "tokens": self.tokens,
            "target": jnp.asarray(self.target(name), jnp.float32),
            "base": self.base,
            "order": jnp.asarray(np.argsort(topic, kind="stable"), jnp.int32),
            "starts": jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
            "counts": jnp.asarray(counts, jnp.int32),
        }
        return self._trained(
            f"dpo {name}",
            training.preferences(self.sizes.pairs, 0.3, self.cfg),
            self.base,
            data,
            optimiser(5e-5),
            self.sizes.preferences,
        )

    # --- figures --------------------------------------------------------------------------------

    def measured(self, params: Params, scorer: Scorer | None = None) -> dict[str, float]:
        """Figures of a policy, with what a reward model thinks of its texts."""
        return measure.of_policy(
            params,
            self.base,
            self.key("measured"),
            DESIGNS[self.design],
            floor=self.floor,
            each=self.sizes.each,
            cfg=self.cfg,
            scorer=scorer,
        )

    def effects(self, name: str) -> dict[str, float]:
        """What features do to the reward model of one target."""
        return measure.effects(self.scorer(name), self.sizes.frames, self.cfg)

    def _trained(
        self,
        name: str,
        stage: Stage,
        start: Params,
        data: Data,
        optim: OptimConfig,
        steps: int,
    ) -> Params:
        def make() -> Params:
            say(f"{self.design}, seed {self.seed}: {name}")
            return training.descend(stage, start, data, self.key(name), optim, steps)

        place = self.folder / self.design / f"seed_{self.seed}" / f"{name.replace(' ', '_')}.npz"
        return _kept(place, start, make)


def _kept(path: Path, like: Params, make: Callable[[], Params]) -> Params:
    """What a file holds, or what is made and put into it."""
    leaves, tree = jax.tree.flatten(like)
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            found = [jnp.asarray(file[str(i)]) for i in range(len(leaves))]
        return jax.tree.unflatten(tree, found)
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
        arrays: Any = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(made))}
        np.savez(file, **arrays)
    return made
