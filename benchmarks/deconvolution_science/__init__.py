"""What the three steps do to photometry, resolution and clumps of galaxies, and where they fail.

``python -m benchmarks.deconvolution_science`` trains the small network (or takes ``--run``),
restores held-out simulated galaxies and, with ``--real-stamps FOLDER``, real stamps, and writes a
table as JSON and text, and pictures. benchmarks/README.md says what was found.
"""
