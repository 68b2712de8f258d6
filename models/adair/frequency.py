"""The adaptive frequency learning block (AFLB): mining, modulation, aggregation."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.adair.blocks import ChannelCrossAttention
from jaxcore.models.adair.config import AdaIRConfig
from jaxcore.nn import Conv, PointwiseConv, Types, tap


class FrequencyMining(nn.Module, kw_only=True):
    """Split features of the degraded image into low and high frequencies (FMiM).

    Parameters: ``conv1`` from image to features; ``rate_conv_0`` and ``rate_conv_2``, which
    predict the window's relative height and width from the mean feature.

    Taps: ``threshold`` (b, 2), which can be edited unless the window is known to be empty;
    ``half_width`` (b, 2) and ``mask`` (b, h, w) in FFT order.

    Attributes:
      features: channels of the split maps.
      cfg: the network's configuration; its mask fields are used.
    """

    features: int
    cfg: AdaIRConfig

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w i"]
    ) -> tuple[Float[Array, "b h w c"] | None, Float[Array, "b h w c"]]:
        """Split.

        Args:
          image: the degraded image, resized to the map.

        Returns:
          ``(low, high)``; ``low`` is None where the window is known to be empty.
        """
        cfg = self.cfg
        types = Types.of(cfg)
        x = Conv(features=self.features, types=types, name="conv1")(image)
        wide = ops.accumulation_dtype(x.dtype)
        x = x.astype(wide)
        size = (x.shape[1], x.shape[2])
        empty = cfg.skip_empty_mask and mask_is_empty(size, cfg)
        threshold = self._threshold(jnp.mean(x, axis=(1, 2)), Types(str(wide), types.param_dtype))
        threshold = tap(self, "threshold", threshold, editable=not empty)
        half, bands = windows(threshold, size, cfg)
        tap(self, "half_width", half, editable=False)
        tap(self, "mask", bands[0][:, :, None] * bands[1][:, None, :], editable=False)
        if empty:
            return None, jnp.abs(x).astype(cfg.dtype)
        low, high = ops.spectral_split(
            x, bands[0].astype(wide), bands[1].astype(wide), method=cfg.spectral
        )
        return low.astype(cfg.dtype), high.astype(cfg.dtype)

    def _threshold(self, mean: Array, types: Types) -> Array:
        """Relative height and width of the window, in (0, 1); never below float32."""
        squeeze = PointwiseConv(features=self.features // 8, types=types, name="rate_conv_0")
        hidden = jax.nn.gelu(squeeze(mean), approximate=False)
        return jax.nn.sigmoid(PointwiseConv(features=2, types=types, name="rate_conv_2")(hidden))


def mask_is_empty(size: tuple[int, int], cfg: AdaIRConfig) -> bool:
    """Whether the window on a map of ``size`` (height, width) is empty for every threshold < 1.

    >>> mask_is_empty((64, 64), AdaIRConfig())
    True
    >>> mask_is_empty((64, 64), AdaIRConfig(mask_mode="soft"))
    False
    """
    return cfg.mask_mode == "official" and min(n // cfg.mask_unit for n in size) <= 1


def windows(
    threshold: Float[Array, "b 2"], size: tuple[int, int], cfg: AdaIRConfig
) -> tuple[Float[Array, "b 2"], tuple[Float[Array, "b h"], Float[Array, "b w"]]]:
    """Half widths of the low-frequency window, and its weight along each axis.

    Args:
      threshold: relative height and width in [0, 1].
      size: height and width of the map.
      cfg: gives the mode; see :class:`AdaIRConfig`.

    >>> half, _ = windows(jnp.array([[0.9, 0.2]]), (64, 64), AdaIRConfig(mask_unit=8))
    >>> half
    Array([[7., 1.]], dtype=float32)
    """
    halves, bands = [], []
    for axis, n in enumerate(size):
        t = threshold[:, axis]
        if cfg.mask_mode == "soft":
            half = t * (n / 2)
            weight = ops.soft_band(half, n, cfg.soft_tau)
        else:
            if cfg.mask_mode == "fixed":
                half = jnp.full_like(t, min(cfg.mask_side // 2, n // 2))
            elif cfg.mask_mode == "ratio":
                half = jnp.trunc(t * (n / 2))
            else:
                half = jnp.trunc(t * (n // cfg.mask_unit))
            weight = ops.band(half.astype(jnp.int32), n)
        halves.append(half)
        bands.append(weight)
    return jnp.stack(halves, axis=-1), (bands[0], bands[1])


class SpatialGate(nn.Module, kw_only=True):
    """High-to-low gate: one factor per pixel, from the maximum and the mean over channels."""

    types: Types = Types()

    @nn.compact
    def __call__(self, high: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
        """Factors in (0, 1)."""
        top = jnp.max(high, axis=-1, keepdims=True)
        mean = jnp.mean(high, axis=-1, keepdims=True)
        both = jnp.concatenate([top, mean], axis=-1)
        conv = Conv(features=1, kernel_size=7, types=self.types, name="spatial")
        return jax.nn.sigmoid(conv(both))


class ChannelGate(nn.Module, kw_only=True):
    """Low-to-high gate: one factor per channel, from the mean and the maximum over pixels.

    Attributes:
      window: side in pixels of the windows of local statistics (then one factor per channel and
        pixel), None for the whole map.
      types: of activations and parameters.
    """

    window: int | None = None
    types: Types = Types()

    @nn.compact
    def __call__(self, low: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Factors in (0, 1)."""
        width, size = low.shape[-1], self.window
        squeeze = PointwiseConv(features=width // 16, types=self.types, name="mlp_0")
        expand = PointwiseConv(features=width, types=self.types, name="mlp_2")
        wide = low.astype(ops.accumulation_dtype(low.dtype))
        if size is None or max(low.shape[1:3]) <= size:
            mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
            top = jnp.max(wide, axis=(1, 2), keepdims=True)
        else:
            mean, top = ops.local_mean(wide, size), ops.local_max(wide, size)
        logits = [expand(jax.nn.relu(squeeze(pool))) for pool in (mean, top)]
        return jax.nn.sigmoid(logits[0] + logits[1])


class FrequencyModulation(nn.Module, kw_only=True):
    """Let the low and the high part gate each other and merge them (FMoM).

    Both gates are computed from the unmodulated parts.

    Attributes:
      window: side in pixels of the windows of local statistics, None for the whole map.
      types: of activations and parameters.
    """

    window: int | None = None
    types: Types = Types()

    @nn.compact
    def __call__(
        self, low: Float[Array, "b h w c"], high: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        """Merge the two parts."""
        types = self.types
        low_gate = SpatialGate(types=types, name="spatial_gate")(high)
        high_gate = ChannelGate(window=self.window, types=types, name="channel_gate")(low)
        merged = low * low_gate + high * high_gate
        project = PointwiseConv(features=low.shape[-1], use_bias=True, types=types, name="proj")
        return project(merged)


class AFLB(nn.Module, kw_only=True):
    """Adaptive frequency learning block: gives decoder features another look at the image.

    Parameters beside those of the parts: ``para1`` (0 at the start) and ``para2`` (1), factors
    per channel of the block's output and of its input; ``conv`` and ``score_gen``, which the
    official checkpoints hold and nothing uses.

    The names in the checkpoints are crossed: ``channel_cross_l`` serves the high part and
    ``channel_cross_h`` the low part.

    Attributes:
      cfg: the network's configuration.
      window: side in pixels of the windows of local statistics, None for the whole map.
    """

    cfg: AdaIRConfig
    window: int | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b hi wi i"], y: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        """Refine features; the shape stays.

        Args:
          image: the degraded image at full resolution.
          y: decoder features.
        """
        cfg, width = self.cfg, y.shape[-1]
        y = y.astype(cfg.dtype)
        types = Types.of(cfg)

        def attend(name: str, query: Array | None, source: Array) -> Array:
            module = ChannelCrossAttention(
                num_heads=cfg.heads[2],
                use_bias=cfg.bias,
                window=self.window,
                types=types,
                name=name,
            )
            return module(query, source)

        resized = ops.resize_bilinear(image, (y.shape[1], y.shape[2]))
        self._unused(resized, width)
        low, high = FrequencyMining(features=width, cfg=cfg, name="mining")(resized)
        if low is None and (cfg.bias or self.is_initializing()):
            # With biases the query of an empty low part is not zero.
            low = jnp.zeros_like(high)
        high = attend("channel_cross_l", high, y)
        low = attend("channel_cross_h", low, y)
        modulate = FrequencyModulation(window=self.window, types=types, name="frequency_refine")
        merged = modulate(low, high)
        out = attend("channel_cross_agg", y, merged)
        para1 = self._per_channel("para1", nn.initializers.zeros, width)
        para2 = self._per_channel("para2", nn.initializers.ones, width)
        return out * para1 + y * para2

    def _per_channel(self, name: str, init: Any, width: int) -> Array:
        value = self.param(name, init, (width,), jnp.dtype(self.cfg.param_dtype))
        return value.astype(self.cfg.dtype).reshape(1, 1, 1, width)

    def _unused(self, resized: Array, width: int) -> None:
        """Weights that the official code creates and never uses: kept for exact round trips."""
        if self.is_initializing():
            types = Types.of(self.cfg)
            Conv(features=width, types=types, name="conv")(resized)
            pair = jnp.zeros((*resized.shape[:3], 2), self.cfg.dtype)
            Conv(features=2, kernel_size=7, use_bias=True, types=types, name="score_gen")(pair)
