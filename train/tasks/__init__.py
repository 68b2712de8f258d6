"""Kinds of training; each is a frozen dataclass that the loop drives."""
