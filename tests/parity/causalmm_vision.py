"""Checks of the golden files of pictures and of networks that see and speak."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxcore.data.images.vision_inputs import PatchInputs, SquareInputs
from tests.parity.golden import Golden, close, equal

_ROUNDING = 1 / 255 / 0.26  # one step of a byte, normalised


def check_preprocess(path: Path) -> None:
    """Pillow's versions round differently by one step of a byte."""
    file = Golden(path)
    constants = {"mean": tuple(file.config["mean"]), "deviation": tuple(file.config["std"])}
    sizes = {"patch": 7, "min_pixels": 392, "max_pixels": 2352}
    for name, image in file.group("in").items():
        number = name.removeprefix("image_")
        for pad, key in ((False, "clip336"), (True, "llava_pad")):
            ours = SquareInputs(side=56, pad=pad, **constants)(image)
            golden = np.moveaxis(file[f"out/{key}_{number}"], 0, -1)
            close(ours, golden, atol=_ROUNDING, rtol=0, what=f"{key} of {name}")
        rows, grid = PatchInputs(**sizes, **constants)(image)
        golden = file[f"out/qwen_pixel_values_{number}"]
        close(rows, golden, atol=_ROUNDING, rtol=0, what=f"patches of {name}")
        equal([grid], file[f"out/qwen_grid_{number}"], what=f"grid of {name}")
    table = file["out/smart_resize_table"]
    equal([PatchInputs().size(*row[:2]) for row in table.tolist()], table[:, 2:], what="sizes")


CHECKS: dict[str, Callable[[Path], None]] = {"preprocess": check_preprocess}
