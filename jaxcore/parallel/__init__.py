"""Meshes, distributed start and compilation of steps."""
