"""Carrying models, packages and results between machines."""
