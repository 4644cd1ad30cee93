"""Attention mechanisms, one runnable module each. Needs torch and the standard library only."""
