"""Systems, or files of them, whose golden files exist and whose implementation does not."""

NOT_YET = (
    "deconfoundlm/state_dict_full.json",
    "deconfoundlm/tiny_llama.npz",
)
