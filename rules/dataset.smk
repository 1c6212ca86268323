# A dataset is a name, a parent and one verb; here its rows are chosen.
rule dataset:
    input:
        unpack(dataset_input),
    output:
        rows=layout.rows("{dataset}"),
        dropped=layout.dropped("{dataset}"),
        card=layout.dataset_card("{dataset}"),
    log:
        f"logs/{configuration.name}/dataset/{{dataset}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/dataset/{{dataset}}.tsv"
    conda:
        "../envs/conda-cpu.yaml"
    params:
        lambda wildcards: graph.dataset(wildcards.dataset),
    message:
        "Choose the rows of {wildcards.dataset}"
    script:
        "../scripts/dataset.py"


rule analysis:
    input:
        unpack(analysis_input),
    output:
        layout.analysis("{analysis}"),
    log:
        f"logs/{configuration.name}/analysis/{{analysis}}.log",
    wildcard_constraints:
        analysis=NAME_PATTERN,
    conda:
        "../envs/conda-cpu.yaml"
    params:
        lambda wildcards: graph.analysis(wildcards.analysis),
    message:
        "Take the quartiles of {wildcards.analysis}"
    script:
        "../scripts/analysis.py"


rule export:
    input:
        unpack(export_input),
    output:
        layout.export("{dataset}", "{form}") / "card.json",
    log:
        f"logs/{configuration.name}/export/{{dataset}}.{{form}}.log",
    wildcard_constraints:
        form="|".join(EXPORT_FORMATS),
    conda:
        "../envs/conda-cpu.yaml"
    params:
        graph.export(),
    message:
        "Write {wildcards.dataset} as {wildcards.form}"
    script:
        "../scripts/export.py"


rule trainset:
    input:
        unpack(trainset_input),
    output:
        trainset=layout.trainset("{recipe}"),
        card=layout.trainset_card("{recipe}"),
    log:
        f"logs/{configuration.name}/trainset/{{recipe}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/trainset/{{recipe}}.tsv"
    conda:
        "../envs/conda-cpu.yaml"
    params:
        lambda wildcards: graph.trainset(wildcards.recipe),
    message:
        "Write the training file of {wildcards.recipe} and open each of its images"
    script:
        "../scripts/trainset.py"
