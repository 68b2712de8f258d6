"""Astronomical images: files, simulated galaxies and what a telescope makes of them."""
