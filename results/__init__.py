"""Records, the store that keeps them, and the published runs."""
