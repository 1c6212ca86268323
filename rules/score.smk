# Each operator scores each record of each source once, shard by shard.
rule score_neural:
    input:
        score_input,
    output:
        scores=layout.scores("{source}", "{operator}", "{shard}"),
        card=layout.scores_card("{source}", "{operator}", "{shard}"),
    log:
        f"logs/{configuration.name}/score/{{source}}/{{operator}}/{{shard}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/score/{{source}}/{{operator}}/{{shard}}.tsv"
    wildcard_constraints:
        operator=operators_on("gpu"),
    conda:
        "../envs/conda-cuda.yaml"
    params:
        lambda wildcards: graph.score(wildcards.source, wildcards.operator, wildcards.shard),
    message:
        "Score {wildcards.source} {wildcards.shard} by {wildcards.operator}"
    script:
        "../scripts/score.py"


use rule score_neural as score_plain with:
    wildcard_constraints:
        operator=operators_on("cpu"),
    conda:
        "../envs/conda-cpu.yaml"
