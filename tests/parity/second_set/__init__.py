"""A second golden set, made from a first one: other sizes, seeds, flags and lengths.

``python -m tests.parity.second_set FIRST SECOND`` changes inputs, weights and configurations of
the files of ``FIRST`` and lets our own functions compute what they should hold. It cannot show
that these are right, which the first set does; ``pytest tests/parity --golden-dir SECOND`` shows
that the checks read everything from a file and know the numbers of none.
"""
