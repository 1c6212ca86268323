"""What is worked out once: `functools.cache` for functions, `cached_property` for an object's values, and this."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Self = TypeVar("Self")


def cached_method(
    method: Callable[Concatenate[Self, Arguments], Result],
) -> Callable[Concatenate[Self, Arguments], Result]:
    """A method whose results are kept, by its positional arguments, in its object, and go with it.

    `functools.cache` would keep every object for good.
    """
    store = f"_results_of_{method.__name__}"

    @wraps(method)
    def cached(self: Self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        assert not named, f"{method.__name__} takes positional arguments, by which its results are kept"
        results = cast(dict[tuple[Any, ...], Result], vars(self).setdefault(store, {}))
        if arguments not in results:
            results[arguments] = method(self, *arguments, **named)
        return results[arguments]

    return cached
