"""Attention mechanisms, one runnable module each. Needs torch and the standard library only."""

__version__ = "0.4.0"
