"""What a network makes of photographs that need nothing."""

import numpy as np

from jaxcore.data.images.crops import to_float

PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "moon", "page", "retina", "rocket", "text"),
)


def check_clean_photographs(loaded, names=PHOTOGRAPHS, least=30):
    """At least so many dB between photographs of scikit-image and what comes out for them."""
    import skimage.data

    for name in names:
        photo = np.asarray(getattr(skimage.data, name)())[:512, :512]
        clean = to_float(photo if photo.ndim == 3 else np.stack([photo] * 3, -1))
        restored = loaded.network.restore(loaded.params, clean, loaded.cfg, bucket=64)
        error = np.mean((np.clip(restored, 0, 1) - clean) ** 2)
        assert -10 * np.log10(error) >= least, name
