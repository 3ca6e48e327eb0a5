"""Accuracy and collapse, measured on tensors, one metric a file."""
