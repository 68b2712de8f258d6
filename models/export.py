"""Networks as StableHLO: one self-contained blob that JAX runtimes on other machines can run."""

import importlib.util
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
from jax import export
from jaxtyping import Array

from jaxcore.errors import UserError
from jaxcore.typing import Params


def export_network(
    module: ModuleType,
    params: Params,
    cfg: Any,
    height: int,
    width: int,
    *,
    batch: int | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """Serialise an image network with its parameters inside.

    Args:
      module: a network whose ``apply(params, images, cfg)`` maps NHWC to images, for example
        ``jaxcore.models.adair``.
      params: its parameters; they become constants of the blob.
      cfg: its configuration, with a field ``in_channels``.
      height: of the images, in pixels.
      width: of the images, in pixels.
      batch: images per call; None leaves the number open.
      platforms: where the blob shall run.

    Returns:
      Bytes for a file; JAX keeps reading them for at least six months of its releases.

    >>> from jaxcore.models import dea_net
    >>> cfg = dea_net.DEANetConfig.tiny().deployed()
    >>> params = dea_net.init(jax.random.key(0), cfg)
    >>> run = load_network(export_network(dea_net, params, cfg, 16, 16, platforms=("cpu",)))
    >>> run(jax.numpy.zeros((3, 16, 16, 3))).shape
    (3, 16, 16, 3)
    """
    count = batch if batch is not None else export.symbolic_shape("batch")[0]
    images = jax.ShapeDtypeStruct((count, height, width, cfg.in_channels), "float32")
    # Outside jit the shapes of the parameters are known, so a misfit is reported here.
    run = jax.jit(lambda x: module.apply(params, x, cfg))
    _need_flatbuffers()
    return bytes(export.export(run, platforms=platforms)(images).serialize())


def _need_flatbuffers() -> None:
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("Exporting networks needs the package flatbuffers, which was not found.")


def load_network(blob: bytes) -> Callable[[Array], Array]:
    """Inverse of :func:`export_network`: a function from float32 NHWC images to images.

    Raises:
      UserError: the bytes are not such a blob.
    """
    _need_flatbuffers()
    try:
        exported = export.deserialize(bytearray(blob))
    except Exception as error:  # the reader raises many kinds, some of them bare
        raise UserError(f"Expected an exported network, found {len(blob)} other bytes.") from error
    return jax.jit(exported.call)
