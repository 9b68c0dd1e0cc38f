"""Measures of a translation (metrics, motion) and of the arithmetic that it takes (flops)."""
