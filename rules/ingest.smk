# Raw files to sharded records, and the index of the whole pool.
for pool_file in configuration.pool.files:

    rule:
        name:
            f"ingest_{pool_file.name}"
        input:
            ancient(pool_file.path),
        output:
            records=[
                layout.records(POOL, shard)
                for shard in plan.shards(POOL)
                if shard.rpartition("-")[0] == pool_file.name
            ],
            order=layout.order(pool_file.name),
            images=layout.images(pool_file.name),
            quarantine=layout.quarantine(pool_file.name),
            ledger=layout.file_ledger(pool_file.name),
        log:
            f"logs/{configuration.name}/ingest/{pool_file.name}.log",
        benchmark:
            f"benchmarks/{configuration.name}/ingest/{pool_file.name}.tsv"
        conda:
            "../envs/conda-cpu.yaml"
        params:
            file=pool_file.name,
            contents=graph.ingest(pool_file.name),
        message:
            f"Read {pool_file.path}"
        script:
            "../scripts/ingest.py"


rule pool_index:
    input:
        [layout.order(file.name) for file in configuration.pool.files],
    output:
        index=layout.index,
        card=layout.index_card,
    log:
        f"logs/{configuration.name}/pool_index.log",
    conda:
        "../envs/conda-cpu.yaml"
    params:
        files=[file.name for file in configuration.pool.files],
    message:
        "Order the pool"
    script:
        "../scripts/pool_index.py"
