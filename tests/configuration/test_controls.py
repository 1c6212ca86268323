"""Controls: a random part as large as a recipe's dataset, as if a person had written it."""

from __future__ import annotations

import pytest

from bettersynth.configuration import ConfigurationError, configure, load, read_yaml
from bettersynth.core.layout import Layout
from bettersynth.workflow.jobs import Jobs

MINIATURE = "config/miniature.yaml"


@pytest.fixture
def content():
    content = dict(read_yaml(MINIATURE))
    recipes = {
        "unfiltered": {"dataset": "pool"},
        "matched": {"dataset": "matched", "seeds": [1, 2]},
        "spliced": {"dataset": "spliced", "seeds": [2, 3]},
        "best": {"dataset": "best", "seeds": [1]},
        "picked": {"dataset": "spliced", "seeds": [1, 2], "training": {"probe": {"keep": 1}}},
        "filled": {"dataset": "similar", "trainset": {"fill": True}},
    }
    return content | {"recipes": recipes}


def controls(content) -> dict[str, tuple]:
    recipes = configure(content, MINIATURE).recipes
    return {
        name: (recipe.dataset, recipe.seeds, recipe.control_of) for name, recipe in recipes.items() if recipe.control_of
    }


def test_a_recipe_gets_a_random_part_as_large_trained_alike(content):
    content["recipes"]["filled"]["control"] = "random"
    assert controls(content) == {"random_like_filled": ("random_like_similar", [1], ["filled"])}
    made = configure(content, MINIATURE)
    assert made.recipes["random_like_filled"].trainset == {"fill": True}
    node = made.datasets["random_like_similar"]
    assert (node.from_, node.sample.like, node.sample.seed) == ("pool", "similar", 0)
    jobs = Jobs(made, Layout("results/test"))
    parents = jobs.dataset.inputs("random_like_similar")["parents"]
    assert parents == [jobs.layout.rows("pool"), jobs.layout.rows("similar")], "the size is read when it is made"


def test_once_for_all_and_equal_sizes_share_one(content):
    content["control"] = "random"
    assert controls(content) == {
        "random_like_matched": ("random_like_matched", [1, 2, 3], ["matched", "spliced"]),
        "random_like_best": ("random_like_best", [1], ["best"]),
        "random_like_picked": ("random_like_matched", [1, 2], ["picked"]),
        "random_like_filled": ("random_like_similar", [1], ["filled"]),
    }, "of the pool itself there is none; picked seeds are compared with seeds picked alike"
    content["recipes"]["filled"]["control"] = "none"
    assert "random_like_filled" not in controls(content)


def test_a_control_can_be_of_a_part_of_the_pool(content):
    content["recipes"]["best"]["control"] = {"from": "similar", "seed": 3}
    content["recipes"]["spliced"]["control"] = {"from": "similar"}
    assert {name: dataset for name, (dataset, *_) in controls(content).items()} == {
        "random_like_best": "random_like_best_of_similar_3",
        "random_like_spliced": "random_like_spliced_of_similar",
    }


def test_ones_own_part_and_ones_own_control_are_taken(content):
    content["datasets"]["mine"] = {"from": "pool", "sample": {"like": "best"}}
    content["recipes"]["best"]["control"] = "random"
    assert controls(content)["random_like_best"][0] == "mine"
    content["recipes"]["own"] = {"dataset": "mine", "control_of": ["best"]}
    assert controls(content) == {"own": ("mine", [1], ["best"])}


def test_a_configuration_that_a_report_keeps_adds_nothing_twice(content):
    made = configure(content | {"control": "random"}, MINIATURE)
    kept = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = configure(kept, MINIATURE)
    assert (again.recipes, again.datasets) == (made.recipes, made.datasets)


def test_without_controls_nothing_is_added():
    written, made = read_yaml(MINIATURE), load(MINIATURE)
    assert written["datasets"].keys() == made.datasets.keys() and written["recipes"].keys() == made.recipes.keys()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipes": {"unfiltered": {"control": "random"}}}, "recipes.unfiltered.control: pool is trained on as it is"),
        ({"recipes": {"best": {"control": {"from": "similr"}}}}, "recipes.best.control.from: there is no dataset"),
        ({"recipes": {"best": {"control": "randm"}}}, "recipes.best.control"),
        ({"recipes": {"best": {"control_of": ["spliced", "bst"]}}}, "did you mean `best`?"),
        ({"recipes": {"best": {"control_of": ["best"]}}}, "a recipe is no control of itself"),
        (
            {"datasets": {"random_like_best": {"from": "pool", "repeat": 3}}, "control": "random"},
            "datasets.random_like_best: the random part as large as best has this name",
        ),
        (
            {"recipes": {"random_like_best": {"dataset": "similar"}}, "control": "random"},
            "recipes.random_like_best: the control of recipe best has this name",
        ),
        ({"trainset": {"cap": None, "fill": True}}, "trainset: `fill` draws rows again up to `cap`, and there is none"),
        ({"datasets": {"x": {"from": "pool", "sample": {"like": "best", "rows": 3}}}}, "one of `rows`, `fraction` and"),
    ],
)
def test_what_cannot_be_meant_is_refused(content, changes, said):
    for section, value in changes.items():
        for name, keys in value.items() if isinstance(value, dict) else ():
            content[section] = dict(content[section])
            content[section][name] = content[section].get(name, {}) | keys if isinstance(keys, dict) else keys
        if not isinstance(value, dict):
            content[section] = value
    with pytest.raises(ConfigurationError) as caught:
        configure(content, MINIATURE)
    assert said in str(caught.value)
