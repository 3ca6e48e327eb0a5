"""The commands: the only place that prints, parses arguments and exits."""
