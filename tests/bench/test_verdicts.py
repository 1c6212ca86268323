"""A short run of the error rates: where nothing differs ours is silent, and the rules beside it are not."""

import argparse

from bench import verdicts


def figures(only, boards):
    options = argparse.Namespace(boards=boards, rival_boards=boards, file_boards=1, processes=1, only=only)
    return verdicts.measure(options)


def test_of_boards_on_which_nothing_differs_ours_calls_few_and_other_rules_many():
    found = figures("null_wild_0_8_recipes_3_seeds", 40)
    assert found["null_false_percent_largest"] <= 12.5, "5 % at most, on so few boards"
    assert found["old_null_false_percent_largest"] >= 15
    assert found["questions_only_null_false_percent_largest"] > 90
    assert found["bootstrap_null_false_percent_largest"] > 30
    assert 90 <= found["coverage_of_8_recipes_and_more_percent_smallest"] <= 100


def test_a_real_difference_is_found_and_its_ratio_covered():
    assert figures("power_10_points_0.7", 30)["power_10_points_0.7_found_percent"] > 80
    assert figures("ratio_3_wild_low_3_seeds", 30)["ratio_3_wild_low_3_seeds_covered_percent"] > 88


def test_seeds_that_were_picked_are_corrected():
    found = figures("picked_wild_0", 30)
    assert found["picked_false_percent_largest"] <= 10 < 20 <= found["old_picked_false_percent_largest"]
