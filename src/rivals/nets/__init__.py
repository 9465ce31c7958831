"""Generators and discriminators as plain modules: build one by name with :mod:`rivals.nets.factory`."""
