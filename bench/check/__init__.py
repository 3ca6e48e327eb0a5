"""Proves what a variant says about itself: shapes, gradients, dependences, extremes, costs, life in a network."""
