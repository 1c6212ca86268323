# Answers first, scores after: predictions are kept for every question.
rule answer:
    input:
        model=layout.finetune("{recipe}", "{seed}") / "card.json",
        questions=benchmark_files,
    output:
        layout.answers_card("{recipe}", "{seed}", "{benchmark}"),
    log:
        f"logs/{configuration.name}/answer/{{recipe}}/{{seed}}.{{benchmark}}.log",
    benchmark:
        f"benchmarks/{configuration.name}/answer/{{recipe}}/{{seed}}.{{benchmark}}.tsv"
    conda:
        "../envs/conda-cuda.yaml"
    params:
        lambda wildcards: graph.answer(wildcards.benchmark),
    message:
        "Ask {wildcards.recipe}, seed {wildcards.seed}, the questions of {wildcards.benchmark}"
    script:
        "../scripts/answer.py"


rule score_answers:
    input:
        answers=layout.answers_card("{recipe}", "{seed}", "{benchmark}"),
        questions=benchmark_files,
    output:
        layout.result("{recipe}", "{seed}", "{benchmark}"),
    log:
        f"logs/{configuration.name}/score_answers/{{recipe}}/{{seed}}.{{benchmark}}.log",
    conda:
        "../envs/conda-cpu.yaml"
    params:
        lambda wildcards: graph.score_answers(wildcards.benchmark),
    message:
        "Score {wildcards.recipe}, seed {wildcards.seed}, on {wildcards.benchmark}"
    script:
        "../scripts/score_answers.py"
