"""Write the files of this folder with PyTorch itself: `python make_fixtures.py` (needs torch).

``expected.npz`` holds what every file's tensors are, under ``FILE/KEY|DTYPE``; dtypes that NumPy
lacks are stored as unsigned integers of the same bits.
"""

import argparse
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import torch  # pyright: ignore[reportMissingImports]  # extra "parity", for this script alone

HERE = Path(__file__).parent
BITS = {
    torch.bfloat16: torch.uint16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}
expected: dict[str, np.ndarray] = {}


class AttributeDict(dict):
    """Stands for Lightning's class of the same name, which pickles by reference."""


lightning = types.ModuleType("lightning_fabric.utilities.data")
AttributeDict.__module__ = lightning.__name__
vars(lightning)["AttributeDict"] = AttributeDict
for parent in ("lightning_fabric", "lightning_fabric.utilities"):
    sys.modules[parent] = types.ModuleType(parent)
sys.modules[lightning.__name__] = lightning


def expect(file: str, tensors: dict[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        tensor = tensor.detach()
        bits = tensor.contiguous().view(BITS[tensor.dtype]) if tensor.dtype in BITS else tensor
        name = str(tensor.dtype).removeprefix("torch.")
        expected[f"{file}/{key}|{name}"] = bits.numpy()


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1, bias=False)
    )


def trained(model: torch.nn.Module) -> torch.optim.Optimizer:
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    model(torch.randn(1, 3, 6, 6)).square().sum().backward()
    optimiser.step()
    return optimiser


def all_kinds() -> dict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) - 5
    return {
        "float64": torch.randn(3, 2, dtype=torch.float64),
        "float32": torch.tensor([1.5, -0.0, float("nan"), float("inf"), 1e-45]),
        "float16": torch.randn(5).half(),
        "bfloat16": torch.randn(3, 5).bfloat16(),
        "int64": torch.tensor([-(2**62), 7]),
        "int32": torch.tensor([-5, 6], dtype=torch.int32),
        "int16": torch.tensor([-5, 6], dtype=torch.int16),
        "int8": torch.tensor([-5, 6], dtype=torch.int8),
        "uint8": torch.tensor([5, 250], dtype=torch.uint8),
        "bool": torch.tensor([[True, False, True]]),
        "complex64": torch.randn(2, dtype=torch.complex64),
        "complex128": torch.randn(2, dtype=torch.complex128),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "transposed": base.T,
        "sliced": base[1:, ::2],
        "expanded": torch.tensor([[3.0], [4.0]]).expand(2, 3),
        "shared_a": base,
        "shared_b": base[2],
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }


def main() -> None:
    torch.manual_seed(0)

    kinds = all_kinds()
    torch.save(kinds, HERE / "kinds.pt")
    expect("kinds.pt", kinds)
    torch.save(kinds, HERE / "kinds_legacy.pth", _use_new_zipfile_serialization=False)
    expect("kinds_legacy.pth", kinds)
    torch.save(kinds, HERE / "kinds_protocol4.pt", pickle_protocol=4)
    expect("kinds_protocol4.pt", kinds)
    untyped = {
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "uint32": torch.tensor([1, 2**32 - 1], dtype=torch.uint32),
        "float8_e4m3fn": torch.randn(2, 3).to(torch.float8_e4m3fn),
        "float8_e5m2": torch.randn(2, 3).to(torch.float8_e5m2),
    }
    torch.save(untyped, HERE / "untyped.pt")
    expect("untyped.pt", untyped)

    model = network()
    optimiser = trained(model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    weights = OrderedDict(("net." + key, value) for key, value in model.state_dict().items())
    torch.save(
        {
            "epoch": 3,
            "global_step": 40,
            "pytorch-lightning_version": "2.0.1",
            "state_dict": weights,
            "loops": {"fit_loop": {"state_dict": {}, "progress": {"total": {"ready": 4}}}},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
            "optimizer_states": [optimiser.state_dict()],
            "lr_schedulers": [schedule.state_dict()],
            "hparams_name": "kwargs",
            "hyper_parameters": AttributeDict(opt=argparse.Namespace(lr=1e-3, sizes=(1, 2))),
        },
        HERE / "lightning.ckpt",
    )
    expect("lightning.ckpt", weights)

    wrapped = {"module." + key: value for key, value in model.state_dict().items()}
    torch.save(
        {
            "model": wrapped,
            "optimizer": optimiser.state_dict(),
            "epoch": 2,
            "max_psnr": np.float64(31.5),
            "losses": [0.5, 0.25],
            "device": torch.device("cuda:0"),
            "dtype": torch.float32,
            "size": torch.Size([1, 2]),
            "seen": {1, 2},
            "groups": defaultdict(list, a=[1]),
            "rng": np.random.RandomState(0).get_state(),
        },
        HERE / "parallel.pk",
    )
    expect("parallel.pk", wrapped)

    mean = OrderedDict((key, value * 2) for key, value in model.state_dict().items())
    torch.save({"params": model.state_dict(), "params_ema": mean}, HERE / "two_sets.pth")
    expect("two_sets.pth", mean)

    average = {"initted": torch.tensor([True]), "step": torch.tensor([9])}
    average |= {"online_model." + key: value for key, value in model.state_dict().items()}
    average |= {"ema_model." + key: value for key, value in mean.items()}
    torch.save(
        {
            "step": 9,
            "model": model.state_dict(),
            "opt0": optimiser.state_dict(),
            "ema": average,
            "scaler": None,
        },
        HERE / "diffusion.pt",
    )
    expect("diffusion.pt", {"ema_model." + key: value for key, value in mean.items()})

    torch.save({"gen": model.state_dict(), "disc": mean}, HERE / "adversarial.pt")
    torch.save(model, HERE / "whole_module.pt")
    torch.save(torch.ones(2), HERE / "one_tensor.pt")
    torch.save({"w": torch.eye(2).to_sparse()}, HERE / "sparse.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), HERE / "script.pt")

    small = {"w": torch.randn(3, 2)}
    torch.serialization.set_crc32_options(False)
    torch.save(small, HERE / "no_checksums.pt")
    expect("no_checksums.pt", small)

    np.savez_compressed(HERE / "expected.npz", allow_pickle=False, **expected)


if __name__ == "__main__":
    main()
