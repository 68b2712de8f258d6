"""Writes ddpm_unet.npz: outputs of denoising-diffusion-pytorch's U-Net and of its DDIM sampler.

Needs PyTorch and the package (2.3.4), which tests do not:

    pip install torch torchvision denoising-diffusion-pytorch==2.3.4
    python tests/models/rddm/make_ddpm_fixture.py
"""

import json
from pathlib import Path

import numpy as np
import torch  # pyright: ignore[reportMissingImports]  # for this script alone
from denoising_diffusion_pytorch import (  # pyright: ignore[reportMissingImports]  # for this script alone
    GaussianDiffusion,
    Unet,
)

SIZES = {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 4}
STEPS, SIDE, SEED = 4, 8, 0


def arrays(state: dict) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in state.items()}


def main() -> None:
    torch.manual_seed(SEED)
    out = {}
    net = Unet(**SIZES)
    with torch.no_grad():  # norms and memories as different from their start as the rest
        for value in net.parameters():
            value.add_(0.05 * torch.randn_like(value))
    diffusion = GaussianDiffusion(net, image_size=SIDE, timesteps=100, sampling_timesteps=STEPS)
    diffusion.eval()
    for key, value in arrays(diffusion.state_dict()).items():
        if key.startswith("model.") or key == "betas":
            out[f"param/{key}"] = value
    x, time = torch.randn(2, 3, SIDE, 12), torch.tensor([3.0, 77.0])
    start = torch.randn(1, 3, SIDE, SIDE)
    draw = torch.randn
    with torch.no_grad():
        out |= {"in/x": x.numpy(), "in/time": time.numpy(), "out/y": net(x, time).numpy()}
        torch.randn = lambda *shape, **kwargs: start  # the sampler's start
        made = diffusion.ddim_sample((1, 3, SIDE, SIDE), return_all_timesteps=True)
        torch.randn = draw
    out |= {"in/start": start.numpy(), "out/trajectory": made[0].numpy()}
    own = Unet(**SIZES, self_condition=True, full_attn=(True, False), learned_variance=True)
    with torch.no_grad():
        y = own(x, time, torch.flip(x, [0]))
    out |= {f"param2/{key}": value for key, value in arrays(own.state_dict()).items()}
    out["out/y_self_condition"] = y.numpy()
    config = {**SIZES, "steps": STEPS, "objective": "pred_v", "schedule": "sigmoid"}
    out["config"] = np.array(json.dumps(config))
    np.savez_compressed(Path(__file__).with_name("ddpm_unet.npz"), **out)


if __name__ == "__main__":
    main()
