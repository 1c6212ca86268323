"""What a method's results are kept by, and for how long."""

from __future__ import annotations

import gc
import weakref

from bettersynth.core.cached import cached_method


class Counting:
    """Counts its calls."""

    def __init__(self):
        self.calls = []

    @cached_method
    def sum_to(self, number):
        self.calls.append(number)
        return number + self.sum_to(number - 1) if number else 0


def test_results_are_kept_by_object_and_arguments():
    one, two = Counting(), Counting()
    assert one.sum_to(3) == one.sum_to(3) == 6 and one.sum_to(2) == 3
    assert one.calls == [3, 2, 1, 0] and two.calls == []
    assert two.sum_to(1) == 1 and two.calls == [1, 0]


def test_results_go_with_their_object():
    made = Counting()
    made.sum_to(2)
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None
