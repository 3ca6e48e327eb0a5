"""Corruptions: common image degradations at five severities, one a file."""
