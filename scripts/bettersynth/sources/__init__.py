"""Generators of new sources: captions written again, images drawn again, captions cleaned."""
