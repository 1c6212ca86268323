# Targets that gather, and nothing else.
localrules:
    all,
    pool,
    scores,
    datasets,
    trainsets,
    exports,


rule all:
    default_target: True
    input:
        layout.report if configuration.recipes or configuration.datasets else layout.index,
        layout.leaderboard if configuration.recipes else [],
        [
            layout.export(dataset, form) / "card.json"
            for dataset, forms in configuration.exports.items()
            for form in forms
        ],


rule pool:
    input:
        layout.index,


rule scores:
    input:
        layout.index,
        [layout.scores(POOL, operator, shard) for operator in configuration.operators for shard in plan.shards(POOL)],


rule datasets:
    input:
        [layout.dataset_card(dataset) for dataset in configuration.datasets],


rule trainsets:
    input:
        [layout.trainset_card(recipe) for recipe in configuration.recipes],


rule exports:
    input:
        [
            layout.export(dataset, form) / "card.json"
            for dataset, forms in configuration.exports.items()
            for form in forms
        ],


for recipe_name in configuration.recipes:

    rule:
        name:
            f"recipe_{recipe_name}"
        input:
            results(recipe_name),
        localrule: True
