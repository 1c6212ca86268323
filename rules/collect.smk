# Targets that gather, and nothing else. With the light rules, they run where Snakemake runs.


rule pool:
    input:
        layout.index,
    localrule: True


rule scores:
    input:
        layout.index,
        [layout.scores(POOL, operator) for operator in configuration.operators],
    localrule: True


rule datasets:
    input:
        [layout.dataset_card(dataset) for dataset in configuration.datasets],
    localrule: True


rule trainsets:
    input:
        [layout.trainset_card(recipe) for recipe in configuration.recipes],
    localrule: True


rule analyses:
    input:
        [layout.analysis(name) for name in configuration.analyses],
    localrule: True


rule exports:
    input:
        exports(),
    localrule: True


for recipe_name in configuration.recipes:

    rule:
        name:
            f"recipe_{recipe_name}"
        input:
            results(recipe_name),
        localrule: True


# What a misspelt recipe comes to, or Snakemake would speak of a missing rule.
rule unknown_recipe:
    input:
        no_such_recipe,
    output:
        "recipe_{name}",
    localrule: True
