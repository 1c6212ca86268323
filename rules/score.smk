# A pass scores a chunk of a source's shards by several operators: models loaded once, every image decoded once.
rule score_neural:
    input:
        score_input,
    output:
        layout.pass_card("{source}", "{scoring}", "{chunk}"),
    log:
        f"logs/{configuration.name}/score/{{source}}/{{scoring}}/{{chunk}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/score/{{source}}/{{scoring}}/{{chunk}}.tsv"
    wildcard_constraints:
        scoring="gpu-[0-9a-f]+",
    conda:
        "../envs/conda-cuda.yaml"
    params:
        lambda wildcards: graph.score(wildcards.source, wildcards.chunk),
    message:
        "Score {wildcards.chunk} of {wildcards.source} ({wildcards.scoring})"
    script:
        "../scripts/score.py"


use rule score_neural as score_plain with:
    wildcard_constraints:
        scoring="cpu-[0-9a-f]+",
    conda:
        "../envs/conda-cpu.yaml"


# One table for each operator and source, whichever passes made it.
rule scores_of:
    input:
        lambda wildcards: graph.score_cards(wildcards.source, wildcards.operator),
    output:
        scores=layout.scores("{source}", "{operator}"),
        card=layout.scores_card("{source}", "{operator}"),
    log:
        f"logs/{configuration.name}/scores/{{source}}/{{operator}}.log",
    conda:
        "../envs/conda-cpu.yaml"
    params:
        # of an id in two files the first one's score counts, and Snakemake does not see an order change
        files=lambda wildcards: [file.name for file in configuration.pool.files] if wildcards.source == POOL else [],
    message:
        "Gather the scores of {wildcards.source} by {wildcards.operator}"
    script:
        "../scripts/scores_of.py"
