"""DEA-Net with merged kernels as a PyTorch user would write it, from the paper's description.

The grouped 7x7 convolutions of the pixel attention are what the paper describes; names are those
of the checkpoints, so that the same weights load.
"""

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, side: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, **options)


class SpatialAttention(nn.Module):
    """From the mean and the maximum over channels."""

    def __init__(self):
        super().__init__()
        self.sa = conv(2, 1, 7, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """One map."""
        return self.sa(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))


class ChannelAttention(nn.Module):
    """From the means over pixels."""

    def __init__(self, width: int, reduction: int):
        super().__init__()
        hidden = width // reduction
        self.ca = nn.Sequential(conv(width, hidden, 1), nn.ReLU(), conv(hidden, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """One number per channel."""
        return self.ca(x.mean((2, 3), keepdim=True))


class PixelAttention(nn.Module):
    """Each channel beside its coarse map, by a grouped convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.pa2 = conv(2 * width, width, 7, padding_mode="reflect", groups=width)

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        """Weights in (0, 1)."""
        pairs = torch.stack([x, coarse], 2).flatten(1, 2)
        return torch.sigmoid(self.pa2(pairs))


class Attention(nn.Module):
    """Content-guided attention; its owner inherits the parts, as the checkpoints name them."""

    def __init__(self, width: int, reduction: int):
        super().__init__()
        self.sa = SpatialAttention()
        self.ca = ChannelAttention(width, reduction)
        self.pa = PixelAttention(width)

    def attend(self, x: Tensor) -> Tensor:
        """Weights of every pixel of every channel."""
        return self.pa(x, self.sa(x) + self.ca(x))


class Block(nn.Module):
    """DEB with merged kernels."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        return self.conv2(torch.relu(self.conv1(x)) + x) + x


class AttentionBlock(Attention):
    """DEAB with merged kernels."""

    def __init__(self, width: int):
        super().__init__(width, 8)
        self.conv1, self.conv2 = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.conv2(torch.relu(self.conv1(x)) + x)
        return y * self.attend(y) + x


class Fusion(Attention):
    """Mixup of two maps."""

    def __init__(self, width: int, reduction: int):
        super().__init__(width, reduction)
        self.conv = conv(width, width, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Fuse."""
        both = low + high
        weight = torch.sigmoid(self.attend(both))
        return self.conv(both + weight * low + (1 - weight) * high)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, stride=2), nn.ReLU())


def _up(inputs: int, outputs: int) -> nn.Sequential:
    up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(up, nn.ReLU())


class DEANet(nn.Module):
    """The whole network."""

    def __init__(self, width: int, depths: tuple[int, ...]):
        super().__init__()
        self.down1 = nn.Sequential(conv(3, width))
        self.down2, self.down3 = _down(width, 2 * width), _down(2 * width, 4 * width)
        self.fe_level_2, self.fe_level_3 = conv(2 * width, 2 * width), conv(4 * width, 4 * width)
        self.up1, self.up2 = _up(4 * width, 2 * width), _up(2 * width, width)
        self.up3 = nn.Sequential(conv(width, 3))
        self.mix1, self.mix2 = Fusion(4 * width, 8), Fusion(2 * width, 4)
        names = ("down_level1", "down_level2", "level3", "up_level2", "up_level1")
        self._depths: dict[str, int] = dict(zip(names, depths, strict=True))
        for name, factor in zip(names, (1, 2, 4, 2, 1), strict=True):
            for i in range(self._depths[name]):
                block = AttentionBlock if name == "level3" else Block
                self.add_module(f"{name}_block{i + 1}", block(factor * width))

    def _stage(self, name: str, x: Tensor) -> Tensor:
        for i in range(self._depths[name]):
            x = getattr(self, f"{name}_block{i + 1}")(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """Restore images, NCHW."""
        x = self._stage("down_level1", self.down1(image))
        d2 = self.down2(x)
        x = self._stage("down_level2", self.fe_level_2(d2))
        d3 = self.down3(x)
        x = self._stage("level3", self.fe_level_3(d3))
        x = self._stage("up_level2", self.up1(self.mix1(d3, x)))
        x = self._stage("up_level1", self.up2(self.mix2(d2, x)))
        return self.up3(x)
