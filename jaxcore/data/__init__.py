"""Files in, batches out: image reading, sources, degradations, grain pipelines."""
