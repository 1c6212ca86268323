# Every recipe, every seed: probe, choice of seeds, stage 1, stage 2.
rule probe:
    input:
        trainset=layout.trainset("{recipe}"),
        trainset_card=layout.trainset_card("{recipe}"),
        start=start,
    output:
        layout.probe("{recipe}", "{seed}") / "card.json",
    log:
        f"logs/{configuration.name}/probe/{{recipe}}/{{seed}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/probe/{{recipe}}/{{seed}}.tsv"
    conda:
        "../envs/conda-cuda.yaml"
    params:
        lambda wildcards: graph.train(wildcards.recipe, "probe"),
    message:
        "Probe {wildcards.recipe} with seed {wildcards.seed}"
    script:
        "../scripts/probe.py"


rule choose_seeds:
    input:
        probes,
    output:
        layout.seeds("{recipe}"),
    log:
        f"logs/{configuration.name}/choose_seeds/{{recipe}}.log",
    conda:
        "../envs/conda-cpu.yaml"
    params:
        seeds=lambda wildcards: configuration.recipes[wildcards.recipe].seeds,
        keep=lambda wildcards: recipe_training(configuration, wildcards.recipe).probe.keep,
    message:
        "Choose the seeds of {wildcards.recipe}"
    script:
        "../scripts/choose_seeds.py"


rule pretrain:
    input:
        trainset=layout.trainset("{recipe}"),
        trainset_card=layout.trainset_card("{recipe}"),
        seeds=verdict,
        start=start,
    output:
        layout.pretrain("{recipe}", "{seed}") / "card.json",
    log:
        f"logs/{configuration.name}/pretrain/{{recipe}}/{{seed}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/pretrain/{{recipe}}/{{seed}}.tsv"
    conda:
        "../envs/conda-cuda.yaml"
    params:
        lambda wildcards: graph.train(wildcards.recipe, "pretrain"),
    message:
        "Stage 1 of {wildcards.recipe} with seed {wildcards.seed}"
    script:
        "../scripts/pretrain.py"


rule finetune:
    input:
        pretrain=layout.pretrain("{recipe}", "{seed}") / "card.json",
        start=start,
        instructions=lambda wildcards: ancient(recipe_training(configuration, wildcards.recipe).finetune.instructions),
    output:
        layout.finetune("{recipe}", "{seed}") / "card.json",
    log:
        f"logs/{configuration.name}/finetune/{{recipe}}/{{seed}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/finetune/{{recipe}}/{{seed}}.tsv"
    conda:
        "../envs/conda-cuda.yaml"
    params:
        lambda wildcards: graph.train(wildcards.recipe, "finetune"),
    message:
        "Stage 2 of {wildcards.recipe} with seed {wildcards.seed}"
    script:
        "../scripts/finetune.py"
