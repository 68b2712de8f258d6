"""Image and estimator metrics as pure functions and mergeable states."""
