"""Saved models and what they do, without PyTorch."""
