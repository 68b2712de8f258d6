"""The one train state, step, loop and checkpoint layer."""
