# Generators make new sources: captions written again, images drawn again, captions cleaned.
rule recaption:
    input:
        rows=jobs.recaption.input("rows"),
        index=jobs.recaption.input("index"),
        records=jobs.recaption.input("records"),
    output:
        records=jobs.recaption.output("records"),
        failed=jobs.recaption.output("failed"),
        card=jobs.recaption.output("card"),
    log:
        jobs.recaption.log(),
    benchmark:
        jobs.recaption.benchmark()
    wildcard_constraints:
        source=jobs.recaption.pattern,
    conda:
        "../envs/conda-cuda.yaml"
    params:
        jobs.recaption.params,
    message:
        jobs.recaption.message
    script:
        "../scripts/generate.py"


use rule recaption as redraw with:
    wildcard_constraints:
        source=jobs.redraw.pattern,
    message:
        jobs.redraw.message


use rule recaption as clean with:
    wildcard_constraints:
        source=jobs.clean.pattern,
    message:
        jobs.clean.message
