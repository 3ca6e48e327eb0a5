"""The recipes: how a network is trained, one file each."""
