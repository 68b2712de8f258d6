"""One test per golden file: `pytest tests/parity --golden-dir DIR` reads `DIR/<system>/`."""

from pathlib import Path

import pytest

from tests.parity import (
    adair,
    causalmm_decoding,
    causalmm_vision,
    clip,
    dea_net,
    dea_net_loss,
    deconfoundlm_llama,
    deconfoundlm_losses,
    deconfoundlm_routes,
    earth_estimators,
    earth_observation,
    llama,
    rddm_diffusion,
    rddm_networks,
    rddm_samplers,
    selective_iv,
    smollm2,
    swin_deconv,
)
from tests.parity.systems import NOT_YET

SYSTEMS = {
    "adair": adair.CHECKS,
    "causalmm": {
        **causalmm_decoding.CHECKS,
        **causalmm_vision.CHECKS,
        **clip.CHECKS,
        **llama.CHECKS,
        **smollm2.CHECKS,
    },
    "dea_net": {**dea_net.CHECKS, **dea_net_loss.CHECKS},
    "deconfoundlm": {
        **deconfoundlm_llama.CHECKS,
        **deconfoundlm_losses.CHECKS,
        **deconfoundlm_routes.CHECKS,
    },
    "earth_observation": {**earth_estimators.CHECKS, **earth_observation.CHECKS},
    "rddm": {**rddm_diffusion.CHECKS, **rddm_networks.CHECKS, **rddm_samplers.CHECKS},
    "selective_iv": selective_iv.CHECKS,
    "swin_deconv": swin_deconv.CHECKS,
}

COMMITTED = Path(__file__).parents[1] / "golden"

# One file per network, for the newest versions of JAX.
NEWEST = (
    "adair/net_small.npz",
    "dea_net/net_deploy.npz",
    "rddm/unet.npz",
    "swin_deconv/sunet_ps4_dual.npz",
)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".npz", ".json"))


def _marks(name: str) -> list[pytest.MarkDecorator]:
    """Files that are not committed are large or slow."""
    marks = [pytest.mark.newest] * (name in NEWEST)
    return marks if (COMMITTED / name).exists() else [*marks, pytest.mark.golden]


def pytest_generate_tests(metafunc):
    """Every file of every system there is; a folder we know nothing about becomes a failure."""
    root: Path = metafunc.config.getoption("--golden-dir")
    found = [path for path in _files(root) if not _waits(path, root)]
    names = [path.relative_to(root).as_posix() for path in found]
    params = [pytest.param(p, id=n, marks=_marks(n)) for p, n in zip(found, names, strict=True)]
    metafunc.parametrize("path", params or [pytest.param(None, id="no golden files")])


def _system(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0]


def _waits(path: Path, root: Path) -> bool:
    """Whether this file, or its system, is in `NOT_YET`."""
    return path.relative_to(root).as_posix() in NOT_YET or _system(path, root) in NOT_YET


def test_golden(path, pytestconfig):
    root = pytestconfig.getoption("--golden-dir")
    assert path is not None, f"No .npz or .json file below {root}."
    system = _system(path, root)
    assert system in SYSTEMS, f"Unknown system {system!r}: expected one of {', '.join(SYSTEMS)}."
    checks = SYSTEMS[system]
    prefix = max((p for p in checks if path.stem.startswith(p)), key=len, default=None)
    assert prefix is not None, f"No check for {path.name!r}: it begins with none of {list(checks)}."
    checks[prefix](path)
