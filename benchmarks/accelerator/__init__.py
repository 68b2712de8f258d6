"""How fast are the networks on an accelerator, next to PyTorch and next to the card's limits?

    python -m benchmarks.accelerator -o results.json --budget 500    # on one NVIDIA GPU
    python -m benchmarks.accelerator --smoke -o smoke.json           # tiny, on the CPU
    python -m benchmarks.accelerator --table results.json            # print the table again

Every part is a process of its own for us and one for PyTorch; a part that fails or takes too long
is recorded as such. Processes of a part compile side by side and take turns in being timed, alone
on the card. The file is written again after every measurement. benchmarks/README.md says what the
figures mean.
"""
