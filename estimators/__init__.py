"""Causal estimators: pure functions from arrays to an `Estimate`."""
