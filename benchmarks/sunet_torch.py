"""SUNet as a PyTorch user would write it, from the papers' description.

Tokens are NHWC, as in Swin transformers; names are those of the official files, so that the same
weights load (without the prefix of all keys).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaxcore.models.sunet import SUNetConfig


def windows(x: Tensor, side: int) -> Tensor:
    """(b, h, w, c) -> (b * n, side**2, c)."""
    b, h, w, c = x.shape
    x = x.view(b, h // side, side, w // side, side, c).transpose(2, 3)
    return x.reshape(-1, side * side, c)


def whole(x: Tensor, side: int, height: int, width: int) -> Tensor:
    """Inverse of `windows`."""
    x = x.view(-1, height // side, width // side, side, side, x.shape[-1]).transpose(2, 3)
    return x.reshape(x.shape[0], height, width, x.shape[-1])


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """-100 between tokens that a roll brought together."""
    label = torch.zeros(1, side, side, 1)
    parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(parts):
        for j, cols in enumerate(parts):
            label[:, rows, cols] = 3 * i + j
    tokens = windows(label, window).squeeze(-1)
    return (tokens[:, None] != tokens[:, :, None]).float() * -100.0


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with biases of relative positions."""

    def __init__(self, width: int, window: int, heads: int, scale: float | None):
        super().__init__()
        self.heads, self.scale = heads, scale or (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02)
        )
        places = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij")).flatten(1)
        apart = places[:, :, None] - places[:, None, :] + window - 1
        self.register_buffer("relative_position_index", apart[0] * (2 * window - 1) + apart[1])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend in (b * n, tokens, c)."""
        b, tokens, c = x.shape
        q, k, v = self.qkv(x).view(b, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        logits = logits + bias.view(tokens, tokens, -1).permute(2, 0, 1)
        if mask is not None:
            grouped = logits.view(-1, mask.shape[0], self.heads, tokens, tokens)
            logits = (grouped + mask[None, :, None]).view(logits.shape)
        out = logits.softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(b, tokens, c))


class Block(nn.Module):
    """Attention in plain or shifted windows, and an MLP."""

    def __init__(self, width: int, side: int, window: int, shift: int, heads: int, ratio: float,
                 scale: float | None):  # fmt: skip
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = WindowAttention(width, window, heads, scale)
        hidden = int(width * ratio)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        mask = shift_mask(side, window, shift) if shift else None
        self.register_buffer("attn_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (b, h, w, c)."""
        height, width = x.shape[1:3]
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = whole(self.attn(windows(y, self.window), self.attn_mask), self.window, height, width)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class PatchMerging(nn.Module):
    """Half the sides, twice the channels."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge 2x2 tokens."""
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class DualUp(nn.Module):
    """Pixel shuffling beside bilinear interpolation."""

    def __init__(self, width: int, factor: int):
        super().__init__()
        out = width // 2 if factor == 2 else width

        def conv(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 1, bias=bias)

        smooth = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
        self.up_p = nn.Sequential(
            conv(width, out * factor**2), nn.PReLU(), nn.PixelShuffle(factor), conv(out, out)
        )
        self.up_b = nn.Sequential(conv(width, width, True), nn.PReLU(), smooth, conv(width, out))
        self.conv = conv(2 * out, out)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge (b, h, w, c)."""
        x = x.permute(0, 3, 1, 2)
        return self.conv(torch.cat([self.up_p(x), self.up_b(x)], 1)).permute(0, 2, 3, 1)


class Stage(nn.Module):
    """Blocks of one resolution and a change of it."""

    def __init__(self, cfg: SUNetConfig, level: int, **after: nn.Module):
        super().__init__()
        shifts = (0, cfg.shifts[level])
        sizes = (cfg.widths[level], cfg.resolutions[level], cfg.windows[level])
        more = (cfg.num_heads[level], cfg.mlp_ratio, cfg.qk_scale)
        blocks = [Block(*sizes, shifts[i % 2], *more) for i in range(cfg.depths[level])]
        self.blocks = nn.Sequential(*blocks)
        self._after = next(iter(after), None)
        for name, module in after.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        x = self.blocks(x)
        return x if self._after is None else getattr(self, self._after)(x)


class PatchEmbed(nn.Module):
    """Tokens of patches that do not overlap."""

    def __init__(self, width: int, side: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(width, width, side, side), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NHWC."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class SUNet(nn.Module):
    """The whole network, without leaving blocks out at random."""

    def __init__(self, cfg: SUNetConfig):
        super().__init__()
        widths, last = cfg.widths, len(cfg.widths) - 1
        self.prelu = nn.PReLU()  # official files hold it; nothing reads it
        self.conv_first = nn.Conv2d(cfg.in_channels, cfg.embed_dim, 3, padding=1)
        self.patch_embed = PatchEmbed(cfg.embed_dim, cfg.patch_size)
        downs = [{"downsample": PatchMerging(width)} for width in widths[:-1]]
        self.layers = nn.ModuleList(Stage(cfg, i, **d) for i, d in enumerate([*downs, {}]))
        self.norm, self.norm_up = nn.LayerNorm(widths[-1]), nn.LayerNorm(widths[0])
        levels = range(last - 1, -1, -1)
        ups = [{"upsample": DualUp(widths[level], 2)} if level else {} for level in levels]
        stages = [Stage(cfg, level, **up) for level, up in zip(levels, ups, strict=True)]
        self.layers_up = nn.ModuleList([DualUp(widths[-1], 2), *stages])
        dense = [nn.Linear(2 * widths[level], widths[level]) for level in levels]
        self.concat_back_dim = nn.ModuleList([nn.Identity(), *dense])
        self.patch_size, self.up = cfg.patch_size, None
        if cfg.final_upsample == "dual":
            self.up = DualUp(widths[0], 4)
        self.output = nn.Conv2d(cfg.embed_dim, cfg.in_channels, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Restore images, NCHW, of the side of the training."""
        x, skips = self.patch_embed(self.conv_first(image)), []
        for stage in self.layers:
            skips.append(x)
            x = stage(x)
        x = self.layers_up[0](self.norm(x))
        for stage, dense, skip in zip(
            self.layers_up[1:], self.concat_back_dim[1:], skips[-2::-1], strict=True
        ):
            x = stage(dense(torch.cat([x, skip], -1)))
        x = self.norm_up(x)
        x = (self.up(x) if self.up is not None else x).permute(0, 3, 1, 2)
        if self.up is None and self.patch_size > 1:
            x = F.interpolate(x, scale_factor=self.patch_size, mode="bilinear")
        return self.output(x)
