# Raw files to sharded records, and the index of the whole pool.
for pool_file in configuration.pool.files:
    file = pool_file.name
    said = pool_file.path.replace("{", "{{").replace("}", "}}")  # Snakemake fills in what stands in braces

    rule:
        name:
            f"ingest_{file}"
        input:
            jobs.ingest.input("raw", file=file),
        output:
            records=jobs.ingest.output("records", file=file),
            order=jobs.ingest.output("order", file=file),
            images=jobs.ingest.output("images", file=file),
            quarantine=jobs.ingest.output("quarantine", file=file),
            ledger=jobs.ingest.output("ledger", file=file),
        log:
            jobs.ingest.log(file=file),
        benchmark:
            jobs.ingest.benchmark(file=file)
        conda:
            "../envs/conda-cpu.yaml"
        params:
            file=jobs.ingest.param("file", file=file),
            contents=jobs.ingest.param("contents", file=file),
        message:
            f"Read {said}"
        script:
            "../scripts/ingest.py"


rule pool_index:
    input:
        jobs.pool_index.input("orders"),
    output:
        index=jobs.pool_index.output("index"),
        card=jobs.pool_index.output("card"),
    log:
        jobs.pool_index.log(),
    localrule: True
    conda:
        "../envs/conda-cpu.yaml"
    params:
        files=jobs.pool_index.param("files"),
    message:
        jobs.pool_index.message
    script:
        "../scripts/pool_index.py"
