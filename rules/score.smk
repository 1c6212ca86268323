# A pass scores a chunk of a source's shards by several operators: models loaded once, every image decoded once.
rule score_neural:
    input:
        jobs.score_neural.input("records"),
    output:
        jobs.score_neural.output("card"),
    log:
        jobs.score_neural.log(),
    benchmark:
        jobs.score_neural.benchmark()
    wildcard_constraints:
        scoring="gpu-[0-9a-f]+",
    conda:
        "../envs/conda-cuda.yaml"
    resources:
        **jobs.score_neural.resources,
    params:
        jobs.score_neural.params,
    message:
        jobs.score_neural.message
    script:
        "../scripts/score.py"


use rule score_neural as score_plain with:
    wildcard_constraints:
        scoring="cpu-[0-9a-f]+",
    conda:
        "../envs/conda-cpu.yaml"
    resources:
        **jobs.score_plain.resources,


# One table for each operator and source, whichever passes made it.
rule scores_of:
    input:
        jobs.scores_of.input("passes"),
    output:
        scores=jobs.scores_of.output("scores"),
        card=jobs.scores_of.output("card"),
    log:
        jobs.scores_of.log(),
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        files=jobs.scores_of.param("files"),
    message:
        jobs.scores_of.message
    script:
        "../scripts/scores_of.py"
