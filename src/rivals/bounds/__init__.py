"""Bounds on the outputs of a network over a set of inputs: IBP, CROWN, alpha-CROWN."""
