"""Systems, or files of them, whose golden files exist and whose implementation does not."""

NOT_YET: tuple[str, ...] = ()
