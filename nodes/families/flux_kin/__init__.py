"""FLUX and the models made of its blocks."""
