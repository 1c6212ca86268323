"""What every test file starts from."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Variables that a file's tests set (operators switch libraries offline for good) do not reach the next file."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
