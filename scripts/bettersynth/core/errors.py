"""What a command says in one sentence instead of a traceback."""

from __future__ import annotations


class PersonError(Exception):
    """Something that the person who typed the command can mend; the message says what and how."""
