"""Mangled input of nine kinds: what mangles it, the commands that read it, and what they may do then.

The tests run a few cases of each kind, ``python -m benchmarks faults`` thousands with another seed.
"""
