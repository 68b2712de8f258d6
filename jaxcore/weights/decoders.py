"""Decoders to start a training from, and those that one has left."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcore.errors import UserError
from jaxcore.json_files import read_json
from jaxcore.places import run_place
from jaxcore.serial import from_json
from jaxcore.typing import Params
from jaxcore.weights.loading import Which

if TYPE_CHECKING:
    import jax

    from jaxcore.models.llama import LlamaConfig
    from jaxcore.tokenizers import Tokenizer


class Decoder(NamedTuple):
    """A decoder with weights.

    Attributes:
      cfg: sizes and options.
      params: weights.
      tokenizer: None where texts came as tokens.
    """

    cfg: "LlamaConfig"
    params: Params
    tokenizer: "Tokenizer | None"


def load_decoder(
    source: str | Path,
    *,
    dtype: str | None = None,
    which: Which = "best",
    mesh: "jax.sharding.Mesh | None" = None,
) -> Decoder:
    """A decoder from a file, a folder or a run.

    Args:
      source: see `load_language`; or a run of ``jaxcore train lm-sft`` or of a training like it,
        whose adapters are merged.
      dtype: of activations and parameters; None keeps that of the weights.
      which: checkpoint of a run.
      mesh: devices over which the parameters are split.

    Raises:
      UserError: nothing there, damaged, or of another kind.
    """
    from jaxcore.weights.language import load_language

    if tuned_task(source) is not None:
        return read_tuned(source, dtype=dtype, which=which, mesh=mesh)
    found = load_language(source, dtype=dtype, mesh=mesh)
    if found.sight is not None:
        raise UserError(f"Expected a model of text alone, found one that sees in {source}.")
    return Decoder(found.cfg, found.params, found.tokenizer)


def tuned_task(source: str | Path) -> Any:
    """The task of a run that has trained a decoder; None for all other places."""
    from jaxcore import registry
    from jaxcore.train.tasks.fine_tuning import FineTuningTask

    path = run_place(source) / "config.json"
    if not path.is_file():
        return None
    config = read_json(path, what="a configuration", finite=False)
    name, fields = config.get("task"), config.get("task_config")
    if not isinstance(name, str) or not isinstance(fields, dict) or not registry.has_task(name):
        return None
    cls = registry.task_class(name)
    if not issubclass(cls, FineTuningTask):
        return None
    return from_json(cls, fields, where="task_config")


def frozen_of(task: Any, run: str | Path) -> Any:
    """What stayed in a training with adapters: its base, read from where it was.

    Args:
      task: of the run.
      run: the run directory, for messages.

    Raises:
      UserError: the base is not there.
    """
    from jaxcore.train.tasks.fine_tuning import FineTuningTask

    if task.policy.lora is None:
        return None
    try:
        return FineTuningTask.frozen(task)  # and nothing that the training alone needs
    except UserError as error:
        raise UserError(f"The adapters of {run} are for a model that is missing: {error}") from None


def read_tuned(
    run: str | Path,
    *,
    dtype: str | None = None,
    which: Which = "best",
    mesh: "jax.sharding.Mesh | None" = None,
) -> Decoder:
    """The decoder that a training has left, its adapters merged.

    Args:
      run: the run directory.
      dtype: see `load_decoder`.
      which: checkpoint.
      mesh: devices over which the parameters are split.

    Raises:
      UserError: no such run, or its base is not where it was.
    """
    import dataclasses

    import jax

    from jaxcore.models import llama
    from jaxcore.parallel import state_shardings
    from jaxcore.train import load_params

    task = tuned_task(run)
    if task is None:
        raise UserError(f"Expected the run of a language model, found none in {run}.")
    params = load_params(run, which)
    weights = task.policy.merged(params, frozen_of(task, run))
    cfg = task.network
    if dtype is not None:
        chosen: Any = dtype
        cfg = dataclasses.replace(cfg, dtype=chosen, param_dtype=chosen)
        weights = jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
    if mesh is not None:
        places = state_shardings(weights, mesh, llama.sharding_rules(cfg, mesh))
        weights = jax.device_put(weights, places)
    return Decoder(cfg, weights, task.words())
