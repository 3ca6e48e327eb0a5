"""Version of the noise streams: raised when a change moves them."""

DRAW_VERSION = 1
