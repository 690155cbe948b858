"""Twinned: tell whether two images show the same thing."""
