"""Folders of adapters as PEFT writes them: a configuration and one file of weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcore.atomic import whole_folder, write_json
from jaxcore.convert import Rule, read_state_dict, write_safetensors
from jaxcore.json_files import read_json
from jaxcore.typing import Params

if TYPE_CHECKING:
    from jaxcore.train.lora import LoRA

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapters(
    folder: str | Path,
    adapters: Params,
    params: Any,
    rules: Sequence[Rule],
    settings: "LoRA",
    *,
    base: str = "",
) -> None:
    """Write a folder that PEFT's ``PeftModel.from_pretrained`` reads.

    Args:
      folder: new folder.
      adapters: of `train.lora`.
      params: of the base, or their shapes.
      rules: key table of the network.
      settings: of the adapters.
      base: name or folder of the base model, for whoever reads it.

    Raises:
      UserError: the folder exists or cannot be written.
    """
    from jaxcore.train import lora

    tensors, config = lora.to_peft(adapters, params, rules, settings)
    with whole_folder(Path(folder)) as temporary:
        write_json(temporary / CONFIG, config | {"base_model_name_or_path": base})
        write_safetensors(temporary / WEIGHTS, tensors, {"format": "pt"})


def load_adapters(folder: str | Path, params: Any, rules: Sequence[Rule]) -> "tuple[Params, LoRA]":
    """Adapters and settings of a folder that PEFT, or `save_adapters`, has written.

    Args:
      folder: with ``adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``).
      params: of the base, or their shapes.
      rules: key table of the network.

    Raises:
      UserError: no such files, damaged ones, or adapters of another network.

    >>> import tempfile
    >>> import jax
    >>> from jaxcore.models import llama
    >>> from jaxcore.train import lora
    >>> cfg, settings = llama.LlamaConfig.tiny(), lora.LoRA(rank=2)
    >>> network = llama.param_shapes(cfg), llama.rules(cfg)
    >>> made = lora.init(jax.random.key(0), *network, settings)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save_adapters(Path(place, "mine"), made, *network, settings)
    ...     load_adapters(Path(place, "mine"), *network)[1] == settings
    True
    """
    from jaxcore.train import lora

    folder = Path(folder)
    config = read_json(folder / CONFIG, what="a configuration of adapters")
    path = folder / WEIGHTS
    if not path.exists() and (folder / "adapter_model.bin").exists():
        path = folder / "adapter_model.bin"
    tensors = read_state_dict(path).tensors
    return lora.from_peft(tensors, config, params, rules)
