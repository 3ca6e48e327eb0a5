"""Version of the backbone, the host of the cores and the initial values: raised when a change moves a number."""

VERSION = 1
