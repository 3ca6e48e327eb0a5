"""Does an attention mechanism make a transformer more robust, and does it keep its representations from collapsing?"""

__version__ = "0.1.0"
