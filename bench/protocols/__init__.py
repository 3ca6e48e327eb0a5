"""The protocols that come with attnbench, one frozen TOML file each."""
