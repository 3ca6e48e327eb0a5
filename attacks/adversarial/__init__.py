"""Adversarial shifts, one attack a file."""
