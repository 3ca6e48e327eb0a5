"""Versions of the noise streams and of the trust report: each raised when a change moves its numbers."""

DRAW_VERSION = 1

TRUST_VERSION = 2
"""Of `attacks/trust`: raised when a change moves what is measured there."""
