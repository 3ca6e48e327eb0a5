"""Contaminations: a share of the input replaced by something foreign, one a file."""
