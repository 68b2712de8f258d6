"""Handing the types of a module on to its layers."""

from typing import Any, Protocol


class HasTypes(Protocol):
    """A module, or a network's configuration."""

    @property
    def dtype(self) -> str:
        """Type of activations."""
        ...

    @property
    def param_dtype(self) -> str:
        """Type of the stored parameters."""
        ...


def types_of(owner: HasTypes, **more: Any) -> dict[str, Any]:
    """The arguments ``dtype`` and ``param_dtype`` for a layer of ``owner``, and any others.

    >>> from jaxcore.nn import ChannelNorm
    >>> types_of(ChannelNorm(dtype="bfloat16"))
    {'dtype': 'bfloat16', 'param_dtype': 'float32'}
    """
    return {"dtype": owner.dtype, "param_dtype": owner.param_dtype, **more}
