# A dataset is a name, a parent and one verb; here its rows are chosen.
rule dataset:
    input:
        parents=jobs.dataset.input("parents"),
        asked=jobs.dataset.input("asked"),
        scores=jobs.dataset.input("scores"),
        records=jobs.dataset.input("records"),
        index=jobs.dataset.input("index"),
    output:
        rows=jobs.dataset.output("rows"),
        dropped=jobs.dataset.output("dropped"),
        card=jobs.dataset.output("card"),
    log:
        jobs.dataset.log(),
    benchmark:
        jobs.dataset.benchmark()
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        jobs.dataset.params,
    message:
        jobs.dataset.message
    script:
        "../scripts/dataset.py"


rule analysis:
    input:
        rows=jobs.analysis.input("rows"),
        scores=jobs.analysis.input("scores"),
        index=jobs.analysis.input("index"),
        images=jobs.analysis.input("images"),
    output:
        jobs.analysis.output("card"),
    log:
        jobs.analysis.log(),
    wildcard_constraints:
        analysis=NAME_PATTERN,
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        jobs.analysis.params,
    message:
        jobs.analysis.message
    script:
        "../scripts/analysis.py"


rule export:
    input:
        rows=jobs.export.input("rows"),
        index=jobs.export.input("index"),
        records=jobs.export.input("records"),
        questions=jobs.export.input("questions"),
        restore=jobs.export.input("restore"),
    output:
        jobs.export.output("card"),
    log:
        jobs.export.log(),
    wildcard_constraints:
        form="|".join(EXPORT_FORMATS),
    conda:
        "../envs/conda-cpu.yaml"
    params:
        jobs.export.params,
    message:
        jobs.export.message
    script:
        "../scripts/export.py"


if configuration.held_out:

    rule held_out:
        input:
            rows=jobs.held_out.input("rows"),
            index=jobs.held_out.input("index"),
            images=jobs.held_out.input("images"),
            records=jobs.held_out.input("records"),
            questions=jobs.held_out.input("questions"),
            restore=jobs.held_out.input("restore"),
        output:
            pairs=jobs.held_out.output("pairs"),
            card=jobs.held_out.output("card"),
        log:
            jobs.held_out.log(),
        benchmark:
            jobs.held_out.benchmark()
        conda:
            "../envs/conda-cpu.yaml"
        params:
            jobs.held_out.params,
        message:
            jobs.held_out.message
        script:
            "../scripts/held_out.py"


rule trainset:
    input:
        rows=jobs.trainset.input("rows"),
        held_out=jobs.trainset.input("held_out"),
        index=jobs.trainset.input("index"),
        images=jobs.trainset.input("images"),
        records=jobs.trainset.input("records"),
        questions=jobs.trainset.input("questions"),
        restore=jobs.trainset.input("restore"),
    output:
        trainset=jobs.trainset.output("trainset"),
        card=jobs.trainset.output("card"),
    log:
        jobs.trainset.log(),
    benchmark:
        jobs.trainset.benchmark()
    conda:
        "../envs/conda-cpu.yaml"
    resources:
        **jobs.trainset.resources,
    params:
        jobs.trainset.params,
    message:
        jobs.trainset.message
    script:
        "../scripts/trainset.py"
