# Targets that gather, and nothing else.
localrules:
    choose_seeds,
    pool,
    scores,
    scores_of,
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
