# Generators make new sources: captions written again, images drawn again, captions cleaned.
rule recaption:
    input:
        unpack(generate_input),
    output:
        records=layout.records("{source}", "{shard}"),
        failed=layout.failed("{source}", "{shard}"),
        card=layout.records_card("{source}", "{shard}"),
    log:
        f"logs/{configuration.name}/generate/{{source}}/{{shard}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/generate/{{source}}/{{shard}}.tsv"
    wildcard_constraints:
        source=sources_by("recaption"),
    conda:
        "../envs/conda-cuda.yaml"
    params:
        lambda wildcards: graph.generate(wildcards.source),
    message:
        "Write captions for {wildcards.shard}"
    script:
        "../scripts/generate.py"


use rule recaption as redraw with:
    wildcard_constraints:
        source=sources_by("redraw"),
    message:
        "Draw images for {wildcards.shard}"


use rule recaption as clean with:
    wildcard_constraints:
        source=sources_by("clean"),
    message:
        "Clean the captions of {wildcards.shard}"
