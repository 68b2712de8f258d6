"""Do deconfounded rewards make better headlines? A small world in which the truth is known.

Headlines of a small grammar carry three features; outcomes are moved by these and by a confounder
that goes with them: a looks bad and is good, s looks good and is bad, e is good and goes with the
confounder (`jaxcore.estimators.deconfound.simulate`). A small decoder learns to write all
headlines, reward models learn outcomes, adjusted in several ways, and policies follow them.

    python -m benchmarks.entangled_headlines                        # all parts, three seeds
    python -m benchmarks.entangled_headlines --parts core --seeds 1
    python -m benchmarks.entangled_headlines --smoke -o runs/smoke  # everything once, tiny

Every finished training is kept below ``runs/entangled_headlines`` and used again; remove the folder
after a change to the code.
"""
