"""Proofs that are too heavy for the test suite. Each is one command, ``python -m benchmarks NAME``."""
