"""Where the authors of the networks keep their weights; nothing of them is here, or downloaded."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Official:
    """Weights of the authors of a paper."""

    network: str  # name in `jaxcore.registry`
    name: str
    what: str  # they are for
    where: str  # address
    licence: str
    parameters: int  # of the network; four bytes each, without what a checkpoint holds besides
    command: str  # after `jaxcore `

    @property
    def megabytes(self) -> int:
        """Size of the weights alone in float32."""
        return round(4 * self.parameters / 1e6)


_RESTORE = "restore photo.jpg -o restored.jpg --weights {}"
_ADAIR = "https://github.com/c-yn/AdaIR"
_RESTORMER = "https://github.com/swz30/Restormer/releases/tag/v1.0"
_DEA_NET = "https://github.com/cecret3350/DEA-Net"

OFFICIAL: tuple[Official, ...] = (
    Official(
        "adair",
        "AdaIR, five tasks",
        "noise, rain, haze, blur and low light",
        _ADAIR,
        "MIT (code)",
        28_784_824,
        _RESTORE.format("adair5d.ckpt"),
    ),
    Official(
        "adair",
        "AdaIR, three tasks",
        "noise, rain and haze",
        _ADAIR,
        "MIT (code)",
        28_784_824,
        _RESTORE.format("adair3d.ckpt"),
    ),
    Official(
        "adair",
        "Restormer",
        "one file each for rain, motion blur, defocus, noise of photographs, Gaussian noise",
        _RESTORMER,
        "non-commercial use",
        26_126_644,
        _RESTORE.format("motion_deblurring.pth"),
    ),
    Official(
        "dea_net",
        "DEA-Net-CR",
        "haze; one file each for RESIDE indoor, outdoor and Haze4K",
        _DEA_NET,
        "none stated: all rights reserved",
        3_653_377,
        _RESTORE.format("PSNR3659_SSIM9897.pth"),
    ),
    Official(
        "sunet",
        "SUNet",
        "Gaussian noise",
        "https://github.com/FanChiMao/SUNet",
        "none stated: all rights reserved",
        99_683_721,
        _RESTORE.format("denoising_model.pth"),
    ),
    Official(
        "rddm",
        "RDDM, faces",
        "generation of faces of CelebA; weights for restoration were never released",
        "https://github.com/nachifur/RDDM",
        "none stated: all rights reserved",
        72_503_558,
        "sample --weights model.pt -o samples --preset path_independence",
    ),
)
"""By network; every command reads the file as it is."""
