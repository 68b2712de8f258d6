"""Where the parameters and caches of a decoder lie on a mesh."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcore.generate.cache import Cache
from jaxcore.models.base import shapes_of
from jaxcore.models.llama.config import LlamaConfig
from jaxcore.models.llama.model import draw
from jaxcore.parallel.mesh import DATA_AXIS, DCN_AXIS, FSDP_AXIS, TENSOR_AXIS

_ROWS = (DCN_AXIS, DATA_AXIS, FSDP_AXIS)
_AXES: dict[str, tuple[str | None, ...]] = {
    "embed": (TENSOR_AXIS, FSDP_AXIS),
    "head": (TENSOR_AXIS, FSDP_AXIS),
    # By head of keys and values; each comes with the queries that use it.
    "layers/qkv/kernel": (None, FSDP_AXIS, TENSOR_AXIS, None, None),
    "layers/qkv/bias": (None, TENSOR_AXIS, None, None),
    "layers/out_proj/kernel": (None, TENSOR_AXIS, FSDP_AXIS),
    "layers/mlp/gate_up/kernel": (None, FSDP_AXIS, None, TENSOR_AXIS),
    "layers/mlp/down/kernel": (None, TENSOR_AXIS, FSDP_AXIS),
}


def sharding_rules(
    cfg: LlamaConfig, mesh: Mesh, *, below: str = ""
) -> tuple[tuple[str, PartitionSpec], ...]:
    """Rules for `jaxcore.parallel.state_shardings`: heads, hidden width and vocabulary by tensor.

    A matrix is split along the axis tensor as in Megatron (the first of two by columns, the second
    by rows) and along its other side over fsdp. Norms, and what does not divide, stay whole.

    Args:
      cfg: sizes and options.
      mesh: of `jaxcore.parallel.make_mesh`.
      below: path of the decoder in a larger network, such as "language/".

    >>> from jaxcore.parallel import make_mesh
    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> dict(sharding_rules(LlamaConfig.tiny(), mesh))["(^|/)layers/mlp/down/kernel$"]
    P(None, 'tensor', 'fsdp')
    """
    rules = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes_of(draw, cfg)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = _AXES.get(name, ())
        # The heads of the queries lie in a row behind attention, those of one key together.
        whole = name == "layers/out_proj/kernel" and cfg.num_kv_heads % mesh.shape[TENSOR_AXIS]
        fitting = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, leaf.shape, strict=False)
        ]
        if whole:
            fitting[1] = None
        rules.append((f"(^|/){below}{name}$", PartitionSpec(*fitting)))
    return tuple(rules)


def cache_sharding(cfg: LlamaConfig, mesh: Mesh) -> Cache:
    """Shardings of a cache: rows over dcn, data and fsdp, heads of keys and values over tensor.

    >>> from jaxcore.parallel import make_mesh
    >>> cache_sharding(LlamaConfig.tiny(), make_mesh(devices=jax.devices()[:1])).valid.spec
    P(('dcn', 'data', 'fsdp'),)
    """
    heads = TENSOR_AXIS if cfg.num_kv_heads % mesh.shape[TENSOR_AXIS] == 0 else None

    def put(*axes: tuple[str, ...] | str | None) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*axes))

    keys, rows = put(None, _ROWS, None, heads), put(_ROWS)
    shardings = {"keys": keys, "values": keys, "valid": rows, "position": rows, "length": put()}
    return Cache(**shardings)  # pyright: ignore[reportArgumentType]
