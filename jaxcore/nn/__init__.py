"""Linen layers that two or more networks share."""
