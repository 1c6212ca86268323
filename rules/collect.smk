# Targets that gather, and nothing else.


# With these, the light rules: arithmetic over small tables, seconds each. They run where Snakemake runs.
localrules:
    analysis,
    choose_seeds,
    dataset,
    leaderboard,
    pool_index,
    report,
    score_answers,
    scores_of,
    pool,
    scores,
    datasets,
    trainsets,
    exports,
    analyses,


rule pool:
    input:
        layout.index,


rule scores:
    input:
        layout.index,
        [layout.scores(POOL, operator) for operator in configuration.operators],


rule datasets:
    input:
        [layout.dataset_card(dataset) for dataset in configuration.datasets],


rule trainsets:
    input:
        [layout.trainset_card(recipe) for recipe in configuration.recipes],


rule analyses:
    input:
        [layout.analysis(name) for name in configuration.analyses],


rule exports:
    input:
        exports(),


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
