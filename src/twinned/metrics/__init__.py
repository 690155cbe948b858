"""Figures of merit computed from distances, embeddings and labels."""
