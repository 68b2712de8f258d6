"""Weights of a run or of a file, with the network they belong to."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jaxcore.errors import UserError
from jaxcore.json_files import parse_json
from jaxcore.places import run_place
from jaxcore.serial import from_json
from jaxcore.typing import Params
from jaxcore.weights.shipped import SHIPPED, shipped

if TYPE_CHECKING:
    from jaxcore.models.base import Network

Which: TypeAlias = Literal["best", "last", "ema"]

DEFAULT_MODEL = "adair"  # of files that do not name theirs
_ENTRY = "jaxcore"  # in the metadata of weight files that we write


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network with weights."""

    network: "Network[Any]"
    cfg: Any  # of the network's configuration class
    params: Params
    notes: tuple[str, ...] = ()  # sentences on what a file holds besides the weights


def load(
    source: str | Path | None = None,
    *,
    model: str | None = None,
    preset: str | None = None,
    which: Which = "best",
    part: str | None = None,
) -> Loaded:
    """Network, configuration and parameters.

    Args:
      source: a run directory of ours (a folder, or ``gs://bucket/folder``), or a weight file
        (.safetensors, .pth, .pt, .ckpt, .gguf, by content) of ours or of the official code, or the
        name of weights in this folder (`jaxcore.weights.SHIPPED`). None takes the first of these.
      model: name of the network. None takes that of the run or of a file written by
        ``jaxcore convert``, and the one whose keys other files have.
      preset: published configuration of the network, for files of networks whose weights do not
        tell it (RDDM); None takes what the weights tell.
      which: checkpoint of a run directory.
      part: name of a set of weights in a file of several (``"net_g_ema"``). None takes the one
        that fits the network, and of several that do a moving average.

    Raises:
      UserError: nothing there, damaged, or of another network or size.

    >>> import tempfile, jax, numpy as np
    >>> from jaxcore.convert import write_safetensors
    >>> from jaxcore.models import adair
    >>> cfg = adair.AdaIRConfig.tiny(decoder=False)
    >>> params = adair.init(jax.random.key(0), cfg)
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_safetensors(Path(folder.name, "w.safetensors"), adair.to_torch(params, cfg))
    >>> found = load(Path(folder.name, "w.safetensors"))
    >>> found.network.name, found.cfg == cfg
    ('adair', True)
    >>> found.network.restore(found.params, np.zeros((12, 9, 3), np.float32), found.cfg).shape
    (12, 9, 3)
    >>> folder.cleanup()
    """
    source = _place(source)
    if source.is_dir():
        if preset is not None:
            raise UserError(f"A run knows its configuration: leave the preset {preset!r} out.")
        if part is not None:
            raise UserError(f"Expected a file for the set {part!r}, found a run: leave it out.")
        return _load_run(source, model, which)
    if not source.exists():
        raise UserError(f"Expected a run directory or a weight file, found nothing at {source}.")
    return _load_file(source, model, preset, part)


def _place(source: str | Path | None) -> Path:
    if source is None:
        return shipped().path
    place = run_place(source)
    return SHIPPED[str(source)].path if str(source) in SHIPPED and not place.exists() else place


def describe(network: "Network[Any]", cfg: Any) -> dict[str, str]:
    """Metadata of a weight file from which `load` knows what cannot be read from the weights."""
    return {_ENTRY: json.dumps({"model": network.name, "config": cfg.to_dict()})}


def _choose(model: str | None, stored: str | None, where: Path) -> "Network[Any]":
    from jaxcore import registry

    if model is not None and stored is not None and model != stored:
        raise UserError(f"Expected weights of {model}, found weights of {stored} in {where}.")
    return registry.network(model or stored or DEFAULT_MODEL)


def _load_run(run: Path, model: str | None, which: Which) -> Loaded:
    from jaxcore.train import load_params, read_config

    config = read_config(run)
    if (tuned := _tuned(run, model, which)) is not None:
        return tuned
    task = config.get("task_config") if isinstance(config, dict) else None
    fields = task.get("network") if isinstance(task, dict) else None
    if not isinstance(task, dict) or not isinstance(fields, dict):
        raise UserError(f"Expected the run of an image network, found another kind in {run}.")
    network = _choose(model, task.get("model", DEFAULT_MODEL), run)
    cfg = from_json(network.config_class, fields, where="task_config.network")
    return Loaded(network, cfg, load_params(run, which, expected=network.param_shapes(cfg)))


def _tuned(run: Path, model: str | None, which: Which) -> Loaded | None:
    """The decoder of the training of a language model, its adapters merged."""
    from jaxcore.weights.decoders import read_tuned, tuned_task

    if tuned_task(run) is None:
        return None
    network, found = _choose(model, "llama", run), read_tuned(run, which=which)
    return Loaded(network, found.cfg, found.params)


def _load_file(path: Path, model: str | None, preset: str | None, part: str | None) -> Loaded:
    from jaxcore import registry
    from jaxcore.convert import read_sets
    from jaxcore.weights.sets import promised_axes, weight_set

    files = read_sets(path)
    if files[0].format == "gguf":
        from jaxcore.weights.language import gguf_network

        return Loaded(_choose(model, "llama", path), *gguf_network(path, files[0]))
    stored, fields = _stored(files[0].metadata, path)
    given = model or stored
    networks = registry.networks() if given is None else ()
    names = (given or DEFAULT_MODEL, *(name for name in networks if name != DEFAULT_MODEL))
    found, notes = weight_set(path, files, _Networks(names), part)
    network = _choose(model, stored or (found.network and found.network.name), path)
    try:
        if preset is not None:
            cfg = _preset(network, preset)
        elif fields is not None:
            cfg = network.config_class.from_dict(fields)
        elif found.network is network:
            cfg = found.cfg
        elif network.config_from_state_dict is not None:
            with promised_axes():
                cfg = network.config_from_state_dict(found.tensors)
        else:
            raise UserError("the file does not tell their configuration.")
        with promised_axes():
            params = network.from_torch(found.tensors, cfg)
    except UserError as error:
        others = ""
        if model is None and found.network is None:
            others = " None of the other networks fits either; --model names one."
        raise UserError(
            f"{path} does not hold weights of {network.name}: {error}{others}"
        ) from None
    return Loaded(network, cfg, params, notes)


class _Networks(Iterable["Network[Any]"]):
    """Networks by name, imported one after the other."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __iter__(self) -> "Iterator[Network[Any]]":
        from jaxcore import registry

        return map(registry.network, self._names)


def _preset(network: "Network[Any]", name: str) -> Any:
    if name not in network.presets:
        listing = f"one of {', '.join(network.presets)}" if network.presets else "none"
        raise UserError(f"Expected as preset of {network.name} {listing}, found {name!r}.")
    return network.presets[name]()


def _stored(metadata: Mapping[str, Any], path: Path) -> tuple[str | None, dict[str, Any] | None]:
    """Name and configuration that `describe` put into a file; None of a foreign one."""
    if _ENTRY not in metadata:
        return None, None
    content = parse_json(str(metadata[_ENTRY]), source=f"a model and its configuration in {path}")
    model, fields = content.get("model"), content.get("config")
    if not isinstance(model, str) or not isinstance(fields, dict):
        raise UserError(f"Expected a model and its configuration in {path}, found none.")
    return model, fields
