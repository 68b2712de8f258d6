"""Official weight files as a configuration and parameters."""

from pathlib import Path

from jaxcore.typing import Params


def load_adair(path: Path) -> tuple[object, Params]:
    """AdaIR or Restormer weights from a PyTorch or safetensors file."""
    from jaxcore.convert import read_state_dict, strip_prefix
    from jaxcore.errors import UserError
    from jaxcore.models import adair

    if not path.is_file():
        raise UserError(f"Expected a weight file, found no file {path}.")
    tensors = strip_prefix(read_state_dict(path).tensors, "module.", "_orig_mod.", "net.")
    cfg = adair.config_from_state_dict(tensors)
    return cfg, adair.from_torch(tensors, cfg)
