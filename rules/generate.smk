# Generators make new sources: captions written again, images drawn again, captions cleaned. Each has a rule.
for generator in jobs.generators:

    rule:
        name:
            generator.name
        input:
            rows=generator.input("rows"),
            index=generator.input("index"),
            records=generator.input("records"),
        output:
            records=generator.output("records"),
            failed=generator.output("failed"),
            card=generator.output("card"),
        log:
            generator.log(),
        benchmark:
            generator.benchmark()
        wildcard_constraints:
            source=generator.pattern,
        conda:
            "../envs/conda-cuda.yaml"
        resources:
            **generator.resources,
        params:
            generator.params,
        message:
            generator.message
        script:
            "../scripts/generate.py"
