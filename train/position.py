"""The position of a run in its data, as a checkpoint keeps it."""

import base64
import copy
from pathlib import Path
from typing import Any

from jaxcore.errors import UserError, readable
from jaxcore.train.task import BatchIterator


def encode(position: Any) -> Any:
    """Position of an iterator as JSON."""
    if isinstance(position, bytes):
        return {"bytes": base64.b64encode(position).decode()}
    return position


def _decode(stored: Any) -> Any:
    if isinstance(stored, dict) and set(stored) == {"bytes"}:
        return base64.b64decode(stored["bytes"])
    return stored


def go_to(iterator: BatchIterator, stored: Any, run_dir: Path) -> Any:
    """Bring the data to a stored position, and return it; nothing is done where none is stored.

    Raises:
      UserError: it is no position in these data.
    """
    if stored is None:
        return None
    try:
        position = _decode(stored)
        iterator.set_state(copy.deepcopy(position))
    except UserError:
        raise
    except Exception as error:  # whatever an iterator makes of it
        raise UserError(
            f"Expected a position in the data of this task in the newest checkpoint of {run_dir}, "
            f"found {readable(repr(stored))} ({type(error).__name__}: {error})."
        ) from error
    return position
