"""Optimiser groups: other settings for the parameters whose path matches a pattern."""

import dataclasses
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import jax

from jaxcore.bounds import AtLeast, Below, Positive
from jaxcore.errors import UserError
from jaxcore.serial import Serial
from jaxcore.typing import Params

OptimName: TypeAlias = Literal[
    "adamw", "adam", "nadamw", "nadam", "radam", "adabelief", "sgd", "lion", "lamb", "muon"
]
Share: TypeAlias = Annotated[float, AtLeast(0), Below(1)]
NonNegative: TypeAlias = Annotated[float, AtLeast(0)]

FROZEN, REST = "frozen", "rest"  # labels of leaves that no group has
# Last names of leaves without decay. In a stack of layers they have one more axis than alone.
_UNDECAYED = ("bias", "scale", "temperature")
_FORM = "PATTERN:KEY=VALUE,..., such as 'encoder:lr=1e-5', 'norm|bias:decay=0' or 'embed:freeze'"
_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "lr": ("learning_rate", float),
    "decay": ("weight_decay", float),
    "eps": ("eps", float),
    "optimiser": ("name", str),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig(Serial):
    """Settings of their own for the parameters whose path matches; None inherits.

    The first group whose ``pattern`` is found (``re.search``) in the path ``"a/b/kernel"`` wins.

    >>> GroupConfig.parse("encoder:lr=1e-5,decay=0").learning_rate
    1e-05
    """

    metavar: ClassVar[str] = "PATTERN:lr=X,decay=X|PATTERN:freeze"

    pattern: str  # regular expression on the parameter path
    name: OptimName | None = None
    learning_rate: Positive | None = None  # peak; the shape of the schedule is shared
    betas: tuple[Share, Share] | None = None
    eps: Positive | None = None
    weight_decay: NonNegative | None = None
    freeze: bool = False  # the parameters stay: no gradient, no update, no optimiser state

    def problems(self) -> list[str]:
        """A pattern that is none, and settings of what is frozen."""
        found = []
        try:
            re.compile(self.pattern)
        except re.error as error:
            found.append(f"pattern {self.pattern!r} is not a regular expression ({error})")
        if self.freeze and dataclasses.replace(self, freeze=False) != GroupConfig(
            pattern=self.pattern
        ):
            found.append(f"freeze of {self.pattern!r} leaves no use for its other settings")
        return found

    @classmethod
    def parse(cls, text: str) -> Self:
        """A group in one word, as on the command line: ``PATTERN:KEY=VALUE,...``.

        Keys are ``lr``, ``decay``, ``eps`` and ``optimiser``; ``freeze`` stands alone. The pattern
        ends at the last colon.

        Raises:
          UserError: it is of another form, or a value is out of its range.
        """
        pattern, colon, settings = text.rpartition(":")
        fields: dict[str, Any] = {}
        for word in filter(None, settings.split(",")):
            key, equals, value = word.partition("=")
            if (key, equals) == ("freeze", ""):
                fields["freeze"] = True
                continue
            try:
                name, kind = _KEYS[key]
                fields[name] = kind(value)
            except (KeyError, ValueError):
                colon = ""
        if not (pattern and colon and fields):
            raise UserError(f"Expected an optimiser group as {_FORM}, found {text!r}.")
        return cls(pattern=pattern, **fields)

    def text(self) -> str:
        """Inverse of `parse`, which has no word for ``betas``."""
        words = [f"{key}={getattr(self, name)}" for key, (name, _) in _KEYS.items()]
        words = [word for word in words if not word.endswith("=None")]
        return f"{self.pattern}:{','.join(words) or 'freeze'}"


Groups: TypeAlias = tuple[GroupConfig, ...]


def parameter_path(path: tuple[Any, ...]) -> str:
    """``"encoder/0/kernel"`` for a key path of `jax.tree_util`.

    >>> import jax
    >>> [(path, _)] = jax.tree_util.tree_leaves_with_path({"a": [1]})
    >>> parameter_path(path)
    'a/0'
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def decayed(params: Params) -> Any:
    """Tree of bools: which leaves lose weight by default.

    Not biases, scales of norms and temperatures, by their name, nor anything of fewer than two
    axes. The name decides because leaves of a stack of layers have one more axis.

    >>> import jax.numpy as jnp
    >>> decayed({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "gain": jnp.ones(2)})
    {'bias': False, 'gain': False, 'kernel': True}
    """

    def has(path: tuple[Any, ...], leaf: Any) -> bool:
        return leaf.ndim > 1 and parameter_path(path).rpartition("/")[-1] not in _UNDECAYED

    return jax.tree_util.tree_map_with_path(has, params)


def _group(groups: Groups, path: tuple[Any, ...]) -> int | None:
    """Number of the first group that matches."""
    name = parameter_path(path)
    found = (i for i, group in enumerate(groups) if re.search(group.pattern, name))
    return next(found, None)


def assigned(groups: Groups, params: Params) -> Any:
    """``"group<i>"`` or `REST` for every leaf, whether it learns or not."""

    def name(path: tuple[Any, ...], _: Any) -> str:
        i = _group(groups, path)
        return REST if i is None else f"group{i}"

    return jax.tree_util.tree_map_with_path(name, params)


def trainable_leaves(groups: Groups, own: Any, params: Params) -> Any:
    """Tree of bools: leaves that learn, those of a task's own mask that no group freezes.

    Args:
      groups: of the optimiser.
      own: the task's mask (`jaxcore.train.task.Task.trainable`); None lets everything learn.
      params: parameters or their shapes.

    Returns:
      The mask; None where everything learns.

    >>> import jax.numpy as jnp
    >>> params = {"embed": jnp.ones(2), "head": jnp.ones(2)}
    >>> trainable_leaves((GroupConfig.parse("embed:freeze"),), None, params)
    {'embed': False, 'head': True}
    """
    if not any(group.freeze for group in groups):
        return own
    whole = jax.tree.map(lambda _: True, params) if own is None else own

    def learns(path: tuple[Any, ...], keep: bool) -> bool:
        i = _group(groups, path)
        return keep and not (i is not None and groups[i].freeze)

    return jax.tree_util.tree_map_with_path(learns, whole)


def labels(groups: Groups, own: Any, params: Params) -> Any:
    """Name of the optimiser of every leaf: ``"group<i>"``, `FROZEN` or `REST`.

    Raises:
      UserError: a pattern matches no parameter, or nothing is left that learns.
    """
    found = assigned(groups, params)
    used = set(jax.tree.leaves(found))
    for i, group in enumerate(groups):
        if f"group{i}" not in used:
            paths = [
                parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
            ]
            earlier = " that an earlier group has not taken" if i else ""
            raise UserError(
                f"Optimiser group pattern {group.pattern!r} matches no parameter{earlier}: "
                f"expected a part of a path such as {', '.join(paths[:: len(paths) // 3 + 1])}."
            )
    mask = trainable_leaves(groups, own, params)
    if mask is None:
        return found
    if not any(jax.tree.leaves(mask)):
        raise UserError("Expected parameters that learn, found that all are frozen.")
    return jax.tree.map(lambda keep, name: name if keep else FROZEN, mask, found)


def summary(groups: Groups, params: Params, rate: float, decay: float) -> str:
    """One sentence on what each group holds; empty without groups.

    Args:
      groups: of the optimiser.
      params: parameters or their shapes.
      rate: peak learning rate of all others.
      decay: weight decay of all others.

    >>> import jax.numpy as jnp
    >>> params = {"embed": jnp.ones(2), "head": jnp.ones(3)}
    >>> summary((GroupConfig.parse("embed:freeze"),), params, 0.1, 0.0)
    "Optimiser groups: 'embed' 2 parameters, frozen; all others 3, learning rate 0.1, decay 0."
    """
    if not groups:
        return ""
    counts: dict[str, int] = {}
    names, leaves = jax.tree.leaves(assigned(groups, params)), jax.tree.leaves(params)
    for name, leaf in zip(names, leaves, strict=True):
        counts[name] = counts.get(name, 0) + int(leaf.size)
    parts = []
    for i, group in enumerate(groups):
        own_rate = rate if group.learning_rate is None else group.learning_rate
        own_decay = decay if group.weight_decay is None else group.weight_decay
        with_what = "frozen" if group.freeze else f"learning rate {own_rate:g}, decay {own_decay:g}"
        unit = "" if parts else " parameters"
        parts.append(f"{group.pattern!r} {counts[f'group{i}']:,}{unit}, {with_what}")
    if REST in counts:
        parts.append(f"all others {counts[REST]:,}, learning rate {rate:g}, decay {decay:g}")
    return f"Optimiser groups: {'; '.join(parts)}."
