# The leaderboard, what an early loss tells of it, and the page.
rule leaderboard:
    input:
        results=jobs.leaderboard.input("results"),
        trainsets=jobs.leaderboard.input("trainsets"),
    output:
        leaderboard=jobs.leaderboard.output("leaderboard"),
        csv=jobs.leaderboard.output("csv"),
        markdown=jobs.leaderboard.output("markdown"),
        tensorboard=directory(jobs.leaderboard.output("tensorboard")),
        tracker=jobs.leaderboard.output("tracker"),
    log:
        jobs.leaderboard.log(),
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        baseline=jobs.leaderboard.param("baseline"),
        recipes=jobs.leaderboard.param("recipes"),
        price=jobs.leaderboard.param("price"),
    message:
        jobs.leaderboard.message
    script:
        "../scripts/leaderboard.py"


rule early_loss:
    input:
        results=jobs.early_loss.input("results"),
        stage_1=jobs.early_loss.input("stage_1"),
    output:
        jobs.early_loss.output("early_loss"),
    log:
        jobs.early_loss.log(),
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        jobs.early_loss.params,
    message:
        jobs.early_loss.message
    script:
        "../scripts/early_loss.py"


rule report:
    input:
        leaderboard=jobs.report.input("leaderboard"),
        early_loss=jobs.report.input("early_loss"),
        datasets=jobs.report.input("datasets"),
        scores=jobs.report.input("scores"),
        analyses=jobs.report.input("analyses"),
        truth=jobs.report.input("truth"),
    output:
        report(jobs.report.output("page"), category="Report", caption="report.rst"),
    log:
        jobs.report.log(),
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        jobs.report.params,
    message:
        jobs.report.message
    script:
        "../scripts/report.py"
