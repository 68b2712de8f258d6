"""``jaxcore convert``."""

from pathlib import Path

import tyro

from jaxcore.cli.weights import load_adair


def convert(
    source: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    overwrite: bool = False,
) -> None:
    """Check AdaIR or Restormer weights and rewrite them (.safetensors, or .pth for PyTorch).

    Args:
      source: official weight file (PyTorch or safetensors).
      output: file to write; its ending chooses the format.
      overwrite: replace an existing output.
    """
    from jaxcore.convert import write_safetensors, write_torch
    from jaxcore.errors import UserError
    from jaxcore.models import adair

    writers = {".safetensors": write_safetensors, ".pth": write_torch, ".pt": write_torch}
    if output.suffix not in writers:
        raise UserError(f"Expected an output ending in {', '.join(writers)}, found {output}.")
    cfg, params = load_adair(source)
    tensors = adair.to_torch(params, cfg)
    writers[output.suffix](output, tensors, overwrite=overwrite)
    print(f"{len(tensors)} tensors -> {output}")
