"""Image files in, batches out: reading and writing, sources, degradations, pipelines."""

from jaxcore.data.images.read import Picture, read_image, read_rgb
from jaxcore.data.images.write import check_ending, check_fits, write_image

__all__ = ["Picture", "check_ending", "check_fits", "read_image", "read_rgb", "write_image"]
