# Answers first, scores after: predictions are kept for every question. One job asks those of all benchmarks.
if configuration.benchmarks:

    rule answer:
        input:
            model=jobs.answer.input("model"),
            questions=jobs.answer.input("questions"),
        output:
            jobs.answer.output("cards"),
        log:
            jobs.answer.log(),
        benchmark:
            jobs.answer.benchmark()
        conda:
            "../envs/conda-cuda.yaml"
        resources:
            **jobs.answer.resources,
        params:
            jobs.answer.params,
        message:
            jobs.answer.message
        script:
            "../scripts/answer.py"


rule score_answers:
    input:
        answers=jobs.score_answers.input("answers"),
        questions=jobs.score_answers.input("questions"),
    output:
        jobs.score_answers.output("result"),
    log:
        jobs.score_answers.log(),
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        jobs.score_answers.params,
    message:
        jobs.score_answers.message
    script:
        "../scripts/score_answers.py"
