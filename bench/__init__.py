"""The workbench: what is run, in which order, and from which command."""
