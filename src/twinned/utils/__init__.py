"""Shared tools: files, progress bars, random streams, groups, notes."""
