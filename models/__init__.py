"""Networks: one folder each, with `init`, `apply`, `from_torch` and `to_torch`."""
