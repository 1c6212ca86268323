# The leaderboard and the page.
rule leaderboard:
    input:
        results=[file for recipe in configuration.recipes for file in results(recipe)],
        trainsets=[layout.trainset_card(recipe) for recipe in configuration.recipes],
    output:
        layout.leaderboard,
    log:
        f"logs/{configuration.name}/leaderboard.log",
    conda:
        "../envs/conda-cpu.yaml"
    params:
        baseline=configuration.report.baseline,
        recipes=[recipe.model_dump_json() for recipe in configuration.recipes.values()],
    message:
        "Compare the recipes"
    script:
        "../scripts/leaderboard.py"


rule report:
    input:
        leaderboard=layout.leaderboard if configuration.recipes else [],
        datasets=[layout.dataset_card(dataset) for dataset in configuration.datasets],
        scores=[layout.scores(POOL, operator) for operator in configuration.operators],
        analyses=[layout.analysis(name) for name in configuration.analyses],
        truth=ancient(configuration.report.truth) if configuration.report.truth else [],
    output:
        report(layout.report, category="Report", caption="report.rst"),
    log:
        f"logs/{configuration.name}/report.log",
    conda:
        "../envs/conda-cpu.yaml"
    params:
        graph.report(),
    message:
        "Write the report"
    script:
        "../scripts/report.py"
