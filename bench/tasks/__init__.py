"""The tasks: a dataset with its splits and its label space, one file each."""
