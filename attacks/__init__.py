"""Shifts: every way in which an input changes before a model sees it."""
