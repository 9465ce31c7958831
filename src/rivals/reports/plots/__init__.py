"""Plots, made with matplotlib as SVG or PNG."""
