"""Checkpoint files of other frameworks, in and out."""
