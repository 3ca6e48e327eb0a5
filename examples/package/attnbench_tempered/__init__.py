"""A variant for attnbench, found by its entry point."""
