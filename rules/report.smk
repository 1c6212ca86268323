# The leaderboard and the page.
rule leaderboard:
    input:
        results=jobs.leaderboard.input("results"),
        trainsets=jobs.leaderboard.input("trainsets"),
    output:
        jobs.leaderboard.output("leaderboard"),
    log:
        jobs.leaderboard.log(),
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        baseline=jobs.leaderboard.param("baseline"),
        recipes=jobs.leaderboard.param("recipes"),
    message:
        jobs.leaderboard.message
    script:
        "../scripts/leaderboard.py"


rule report:
    input:
        leaderboard=jobs.report.input("leaderboard"),
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
