"""Solid shapes."""
