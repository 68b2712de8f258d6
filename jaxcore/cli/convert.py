"""``jaxcore convert``."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.weights import Which


def convert(
    source: tyro.conf.Positional[RunPlace],
    output: tyro.conf.Positional[Path],
    model: str | None = None,
    preset: str | None = None,
    which: Which = "best",
    part: Annotated[str | None, tyro.conf.arg(name="set")] = None,
    deploy: bool = False,
    adapters: bool = False,
    overwrite: bool = False,
) -> None:
    """Check weights and rewrite them under the official names.

    Of a run of a language model (lm-sft, lm-reward, lm-dpo) an output without an ending is a folder
    as Hugging Face's libraries read it, adapters merged; with --adapters one as PEFT reads it.

    A .safetensors file also holds the configuration. A .pth file is the bare state dict that the
    official code loads; where the configuration cannot be read from the weights (a window other
    than the official one, say), they stand below "state_dict", with the configuration beside.

    Args:
      source: run directory, or weight file (PyTorch or safetensors).
      output: file to write; its ending chooses the format: .safetensors, .pth or .pt; or a folder.
      model: name of the network, where it cannot be read from the weights.
      preset: published configuration, for official files that do not hold theirs (RDDM).
      which: checkpoint of a run directory.
      part: name of a set of weights in a file of several (net_g_ema); without it the one that fits
        the network, and of several that do a moving average.
      deploy: merge what is only apart for training; for networks that have such a form (DEA-Net).
      adapters: write the adapters of a run of a language model alone.
      overwrite: replace an existing output.
    """
    from jaxcore.convert import write_safetensors, write_torch
    from jaxcore.errors import UserError
    from jaxcore.weights import describe, load
    from jaxcore.weights.decoders import tuned_task
    from jaxcore.weights.export import export_run

    if adapters or (not output.suffix and tuned_task(source) is not None):
        show(f"{export_run(source, output, which=which, adapters=adapters)} -> {output}")
        return
    endings = (".safetensors", ".pth", ".pt")
    if output.suffix not in endings:
        raise UserError(f"Expected an output ending in {', '.join(endings)}, found {output}.")
    loaded = load(source, model=model, preset=preset, which=which, part=part)
    network, cfg, params = loaded.network, loaded.cfg, loaded.params
    if deploy:
        if network.deploy is None:
            raise UserError(f"The network {network.name} has one form only: leave --deploy out.")
        params, cfg = network.deploy(params, cfg)
    tensors, about = network.to_torch(params, cfg), describe(network, cfg)
    read = network.config_from_state_dict
    read_back = None if read is None else read(tensors)
    note = ""
    if output.suffix == ".safetensors":
        about["format"] = "pt"  # what other readers expect of this layout
        write_safetensors(output, tensors, about, overwrite=overwrite)
    elif read_back == cfg:
        write_torch(output, tensors, overwrite=overwrite)
    else:
        write_torch(output, tensors, wrap="state_dict", extra=about, overwrite=overwrite)
        fields = {} if read_back is None else read_back.to_dict()
        hidden = [name for name, value in cfg.to_dict().items() if fields.get(name) != value]
        note = f' below "state_dict", beside the settings {", ".join(hidden)}'
    for line in loaded.notes:
        show(line)
    show(f"{len(tensors)} tensors of {network.name} -> {output}{note}")
