"""``jaxcore restore``."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jaxcore.cli.weights import load_adair


def restore(
    image: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    weights: Path,
    tile: int | None = None,
    overlap: int = 32,
    ensemble: bool = False,
    overwrite: bool = False,
) -> None:
    """Restore one image with AdaIR or Restormer weights.

    Args:
      image: degraded 8-bit image.
      output: where the restored image goes.
      weights: official weight file (PyTorch or safetensors).
      tile: side of tiles in pixels; whole image without it.
      overlap: pixels shared by neighbouring tiles.
      ensemble: average over eight flips and turns.
      overwrite: replace an existing output.
    """
    from jaxcore.data.images import read_rgb, write_image
    from jaxcore.errors import UserError
    from jaxcore.models import adair

    if output.exists() and not overwrite:
        raise UserError(f"Expected a new file, found that {output} exists (use --overwrite).")
    pixels = read_rgb(image).astype(np.float32) / 255
    cfg, params = load_adair(weights)
    restored = adair.restore(params, pixels, cfg, tile=tile, overlap=overlap, ensemble=ensemble)
    write_image(output, restored, overwrite=overwrite)
    print(output)
