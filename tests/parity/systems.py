"""Systems whose golden files exist and whose implementation does not."""

NOT_YET = ("deconfoundlm",)
