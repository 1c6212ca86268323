# Every recipe, every seed: probe, choice of seeds, stage 1, stage 2.
rule probe:
    input:
        trainset=jobs.probe.input("trainset"),
        trainset_card=jobs.probe.input("trainset_card"),
        start=jobs.probe.input("start"),
    output:
        jobs.probe.output("card"),
    log:
        jobs.probe.log(),
    benchmark:
        jobs.probe.benchmark()
    conda:
        "../envs/conda-cuda.yaml"
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
    params:
        jobs.pretrain.params,
    message:
        jobs.pretrain.message
    script:
        "../scripts/pretrain.py"


rule finetune:
    input:
        pretrain=jobs.finetune.input("pretrain"),
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
    params:
        jobs.finetune.params,
    message:
        jobs.finetune.message
    script:
        "../scripts/finetune.py"
