"""Weights of a run or of a file, with the network they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxcore.errors import UserError
from jaxcore.registry import Network
from jaxcore.typing import Params

Which = Literal["best", "last", "ema"]

DEFAULT_MODEL = "adair"  # of files that do not name theirs
_ENTRY = "jaxcore"  # in the metadata of weight files that we write


def load_network(
    weights: Path,
    model: str | None = None,
    *,
    which: Which = "best",
    preset: str | None = None,
    notes: list[str] | None = None,
) -> tuple[Network, Any, Params]:
    """Network, configuration and parameters.

    Args:
      weights: a run directory of ours, or a weight file (.safetensors, .pth, .pt, .ckpt, by
        content) of ours or of the official code.
      model: name of the network. None takes that of the run or of a file written by
        ``jaxcore convert``, and AdaIR (or Restormer) for other files.
      which: checkpoint of a run directory.
      preset: published configuration of the network, for files of networks whose weights do not
        tell it (RDDM); None takes what the weights tell.
      notes: receives sentences on what a file holds besides the weights.

    Raises:
      UserError: nothing there, damaged, or of another network or size.
    """
    weights = Path(weights)
    if weights.is_dir():
        if preset is not None:
            raise UserError(f"A run knows its configuration: leave the preset {preset!r} out.")
        return _load_run(weights, model, which)
    if not weights.exists():
        raise UserError(f"Expected a run directory or a weight file, found nothing at {weights}.")
    return _load_file(weights, model, preset, [] if notes is None else notes)


def _choose(model: str | None, stored: str | None, where: Path) -> Network:
    from jaxcore import registry

    if model is not None and stored is not None and model != stored:
        raise UserError(f"Expected weights of {model}, found weights of {stored} in {where}.")
    return registry.network(model or stored or DEFAULT_MODEL)


def _load_run(run: Path, model: str | None, which: Which) -> tuple[Network, Any, Params]:
    import jax

    from jaxcore.train import load_params, read_config

    config = read_config(run)
    task = config.get("task_config") if isinstance(config, dict) else None
    fields = task.get("network") if isinstance(task, dict) else None
    if not isinstance(task, dict) or not isinstance(fields, dict):
        raise UserError(f"Expected the run of an image network, found another kind in {run}.")
    network = _choose(model, task.get("model", DEFAULT_MODEL), run)
    cfg = network.config_class.from_dict(fields)
    expected = jax.eval_shape(lambda: network.module.init(jax.random.key(0), cfg))
    return network, cfg, load_params(run, which, expected=expected)


def _load_file(
    path: Path, model: str | None, preset: str | None, notes: list[str]
) -> tuple[Network, Any, Params]:
    from jaxcore.convert import read_state_dict

    file = read_state_dict(path)
    if file.unused:
        notes.append(f"taken from {file.where!r}; left alone: {', '.join(file.unused)}")
    stored, fields = _stored(file.metadata, path)
    network = _choose(model, stored, path)
    tensors = file.tensors
    try:
        if preset is not None:
            cfg = _preset(network, preset)
        elif fields is None:
            cfg = network.module.config_from_state_dict(tensors)
        else:
            cfg = network.config_class.from_dict(fields)
        return network, cfg, network.module.from_torch(tensors, cfg)
    except UserError as error:
        raise UserError(f"{path} does not hold weights of {network.name}: {error}") from None


def _preset(network: Network, name: str) -> Any:
    known = getattr(network.module, "PRESETS", {})
    if name not in known:
        listing = f"one of {', '.join(known)}" if known else "none"
        raise UserError(f"Expected as preset of {network.name} {listing}, found {name!r}.")
    return known[name]()


def _stored(metadata: Mapping[str, Any], path: Path) -> tuple[str | None, dict[str, Any] | None]:
    """Name and configuration that `describe` put into a file; None of a foreign one."""
    if _ENTRY not in metadata:
        return None, None
    try:
        content = json.loads(metadata[_ENTRY])
        return str(content["model"]), dict(content["config"])
    except (ValueError, TypeError, KeyError):
        raise UserError(f"Expected a model and its configuration in {path}, found none.") from None


def describe(network: Network, cfg: Any) -> dict[str, str]:
    """Metadata of a weight file from which `load_network` knows what the weights do not tell."""
    return {_ENTRY: json.dumps({"model": network.name, "config": cfg.to_dict()})}
