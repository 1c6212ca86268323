"""Operators that Data-Juicer does not have, or that a record needs as a number."""
