"""Names of members, as archives have them."""

from __future__ import annotations

import posixpath


def clean_name(name: str) -> tuple[str, str]:
    """A member's name in plain form (`./a//b` is `a/b`), and why it is none that is read, if it is not."""
    if name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/"):
        return name, "has an absolute name"
    if ".." in name.replace("\\", "/").split("/"):
        return name, "has a name that leaves the archive by `..`"
    try:
        name.encode()
    except UnicodeEncodeError:
        return name, "has a name that is no UTF-8"
    return posixpath.normpath(name), "has no name" if posixpath.normpath(name) == "." or "\0" in name else ""
