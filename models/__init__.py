"""Attention variants and the backbones that carry them."""
