"""See the package."""

import argparse
import json
from pathlib import Path

import numpy as np

from tests.parity.second_set import (
    adair,
    dea_net,
    earth_observation,
    rddm,
    selective_iv,
    swin_deconv,
)
from tests.parity.second_set.record import record
from tests.parity.test_golden import SYSTEMS

VARIANTS = {
    "adair": adair.VARIANTS,
    "dea_net": dea_net.VARIANTS,
    "earth_observation": earth_observation.VARIANTS,
    "rddm": rddm.VARIANTS,
    "selective_iv": selective_iv.VARIANTS,
    "swin_deconv": swin_deconv.VARIANTS,
}


def main() -> None:
    """Write the second set, one file after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity.second_set")
    parser.add_argument("first", type=Path, help="folder of golden files")
    parser.add_argument("second", type=Path, help="new folder")
    parser.add_argument("--only", default="", help="files whose path holds this text")
    options = parser.parse_args()
    for system, variants in VARIANTS.items():
        for name, change in variants.items():
            source = options.first / system / f"{name}.npz"
            if options.only not in f"{system}/{name}" or not source.exists():
                continue
            target = options.second / system / f"{name}_2.npz"
            target.parent.mkdir(parents=True, exist_ok=True)
            with np.load(source) as file:
                arrays = dict(file)
            config = json.loads(str(arrays.pop("config", "{}")))
            given = change(arrays, config) or set()
            stale = {key for key in arrays if key.startswith(("out/", "mid/"))} - given
            check = max((p for p in SYSTEMS[system] if name.startswith(p)), key=len)
            record(SYSTEMS[system][check], arrays, config, target, stale=stale)
            print(target)


if __name__ == "__main__":
    main()
