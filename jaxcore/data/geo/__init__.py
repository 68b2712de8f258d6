"""Images of the Earth, one for each key of a place.

| source | function |
|---|---|
| arrays, a function from keys to images | `keyed.KeyedImages`, `keyed.from_function` |
| ``.npz`` and ``.npy`` | `keyed.read_images` |
| GeoTIFF rasters, cropped around places | `geotiff.open_crops` |
| TFRecord files of causalimages | `tfrecord.open_tfrecord`, `tfrecord.write_tfrecord` |
| TFDS sets in the array_record format | `tfds.open_tfds` |
| a CSV matrix for each image and band | `band_folder.read_band_folder` |

All but the first read pixels when they are asked for, so a set may be larger than memory. What the
numbers of the bands mean stands in `bands.BandSpec`.
"""
