# What stage 2 and the benchmarks read is looked at; then every recipe, every seed: probes, choices of seeds, both stages.
rule preflight:
    input:
        jobs.preflight.input("instructions"),
    output:
        jobs.preflight.output("looked_at"),
    log:
        jobs.preflight.log(),
    benchmark:
        jobs.preflight.benchmark()
    wildcard_constraints:
        instructions=NAME_PATTERN,
    conda:
        "../envs/conda-cpu.yaml"
    resources:
        **jobs.preflight.resources,
    message:
        jobs.preflight.message
    script:
        "../scripts/preflight.py"


rule instructions:
    input:
        jobs.instructions.input("instructions"),
        jobs.instructions.input("looked_at"),
    output:
        jobs.instructions.output("used"),
    log:
        jobs.instructions.log(),
    benchmark:
        jobs.instructions.benchmark()
    wildcard_constraints:
        instructions=NAME_PATTERN,
    conda:
        "../envs/conda-cpu.yaml"
    resources:
        **jobs.instructions.resources,
    params:
        jobs.instructions.params,
    message:
        jobs.instructions.message
    script:
        "../scripts/instructions.py"


rule questions:
    input:
        jobs.questions.input("questions"),
    output:
        jobs.questions.output("card"),
    log:
        jobs.questions.log(),
    benchmark:
        jobs.questions.benchmark()
    conda:
        "../envs/conda-cpu.yaml"
    resources:
        **jobs.questions.resources,
    message:
        jobs.questions.message
    script:
        "../scripts/questions.py"


rule probe:
    input:
        trainset=jobs.probe.input("trainset"),
        trainset_card=jobs.probe.input("trainset_card"),
        held_out=jobs.probe.input("held_out"),
        checked=jobs.probe.input("checked"),
        seeds=jobs.probe.input("seeds"),
        start=jobs.probe.input("start"),
    output:
        jobs.probe.output("card"),
    log:
        jobs.probe.log(),
    benchmark:
        jobs.probe.benchmark()
    wildcard_constraints:
        rung=r"probe(-\d+)?",
    conda:
        "../envs/conda-cuda.yaml"
    resources:
        **jobs.probe.resources,
    params:
        jobs.probe.params,
    message:
        jobs.probe.message
    script:
        "../scripts/probe.py"


rule choose_seeds:
    input:
        jobs.choose_seeds.input("probes"),
    output:
        jobs.choose_seeds.output("seeds"),
    log:
        jobs.choose_seeds.log(),
    wildcard_constraints:
        choice=r"seeds(-\d+)?",
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        seeds=jobs.choose_seeds.param("seeds"),
        keep=jobs.choose_seeds.param("keep"),
    message:
        jobs.choose_seeds.message
    script:
        "../scripts/choose_seeds.py"


rule pretrain:
    input:
        trainset=jobs.pretrain.input("trainset"),
        trainset_card=jobs.pretrain.input("trainset_card"),
        held_out=jobs.pretrain.input("held_out"),
        checked=jobs.pretrain.input("checked"),
        seeds=jobs.pretrain.input("seeds"),
        start=jobs.pretrain.input("start"),
    output:
        jobs.pretrain.output("card"),
    log:
        jobs.pretrain.log(),
    benchmark:
        jobs.pretrain.benchmark()
    conda:
        "../envs/conda-cuda.yaml"
    resources:
        **jobs.pretrain.resources,
    params:
        jobs.pretrain.params,
    message:
        jobs.pretrain.message
    script:
        "../scripts/pretrain.py"


rule finetune:
    input:
        pretrain=jobs.finetune.input("pretrain"),
        seeds=jobs.finetune.input("seeds"),
        start=jobs.finetune.input("start"),
        instructions=jobs.finetune.input("instructions"),
    output:
        jobs.finetune.output("card"),
    log:
        jobs.finetune.log(),
    benchmark:
        jobs.finetune.benchmark()
    conda:
        "../envs/conda-cuda.yaml"
    resources:
        **jobs.finetune.resources,
    params:
        jobs.finetune.params,
    message:
        jobs.finetune.message
    script:
        "../scripts/finetune.py"
