# Input functions: what a job reads, from its wildcards; and what jobs ask for.


def score_input(wildcards):
    """Record shards that a pass is about.

    When a raw file changes, ingest writes all its shards anew. Those that are scored as they are stay `ancient`, so
    that a pass runs again only when one of its shards is another.
    """
    chunk = Chunk(wildcards.scoring, wildcards.chunk)
    records = {shard: layout.records(wildcards.source, shard) for shard in chunk_shards(wildcards.chunk)}
    if wildcards.source != POOL:
        return list(records.values())
    return [ancient(path) if graph.is_scored(chunk, shard) else path for shard, path in records.items()]


def dataset_input(wildcards):
    """Parents' rows, and the scores and records that the verb reads."""
    name = wildcards.dataset
    node = plan.dataset(name)
    return {
        "parents": [layout.rows(parent) for parent in node.parents],
        "asked": [layout.rows(asked) for asked in plan.asked(name)] if node.splice else [],
        "scores": [layout.scores(*score) for score in plan.scores(name)],
        "records": [card for source in plan.reads_records(name) for card in record_cards(source)],
        "index": layout.index,
    }


def generate_input(wildcards):
    """Rows that a generator is asked to rewrite, and the records of the sources they name."""
    parent = plan.dataset(wildcards.source).from_
    return {"rows": layout.rows(parent), "index": layout.index, "records": dataset_records(parent)}


def dataset_records(dataset):
    """Cards of the records of every source that the dataset's rows may name."""
    return [card for source in plan.sources(dataset) for card in record_cards(source)]


def record_cards(source):
    """Cards that say which records a source holds: one for each raw file of the pool, or each generated shard."""
    if source == POOL:
        return [layout.file_ledger(file.name) for file in configuration.pool.files]
    return [layout.records_card(source, shard) for shard in plan.shards(source)]


def trainset_input(wildcards):
    """Rows of the recipe's dataset, their records, the sizes of the images, and the files that restore the questions."""
    dataset = configuration.recipes[wildcards.recipe].dataset
    return {
        "rows": layout.rows(dataset),
        "index": layout.index,
        "images": [layout.images(file.name) for file in configuration.pool.files],
        "records": dataset_records(dataset),
        "restore": [ancient(path) for path in configuration.pool.restore],
    }


def analysis_input(wildcards):
    """Rows of a dataset, and the scores whose quartiles are taken."""
    return {
        "rows": layout.rows(configuration.analyses[wildcards.analysis].dataset),
        "scores": [layout.scores(*scores) for scores in plan.analysed(wildcards.analysis)],
        "index": layout.index,
        "images": [layout.images(file.name) for file in configuration.pool.files],
    }


def export_input(wildcards):
    """Rows of a dataset and their records."""
    return {
        "rows": layout.rows(wildcards.dataset),
        "index": layout.index,
        "records": dataset_records(wildcards.dataset),
        "restore": [ancient(path) for path in configuration.pool.restore],
    }


def start(wildcards):
    """The finished run that a run goes on from, if it does."""
    run = recipe_start(configuration, wildcards.recipe, int(wildcards.seed))
    return [] if run is None else layout.finetune(*run) / "card.json"


def probes(wildcards):
    """Probe cards of all seeds of a recipe."""
    seeds = configuration.recipes[wildcards.recipe].seeds
    return [layout.probe(wildcards.recipe, seed) / "card.json" for seed in seeds]


def verdict(wildcards):
    """The choice of seeds, for a recipe that keeps only some of them."""
    keep = recipe_training(configuration, wildcards.recipe).probe.keep
    return [] if keep is None else layout.seeds(wildcards.recipe)


def results(recipe):
    """Result files of a recipe: every seed, every benchmark."""
    return [
        layout.result(recipe, seed, benchmark)
        for seed in configuration.recipes[recipe].seeds
        for benchmark in BENCHMARKS
    ]


def exports():
    """Cards of all exported datasets."""
    return [
        layout.export(dataset, form) / "card.json" for dataset, forms in configuration.exports.items() for form in forms
    ]


def benchmark_files(wildcards):
    """Question and annotation files of a benchmark; their contents are parameters of the rules that read them."""
    return [ancient(path) for path in graph.benchmark_files(wildcards.benchmark)]


def sources_by(verb):
    """Pattern of the sources that a verb makes; matches nothing when there are none."""
    return "|".join(name for name, node in plan.generators.items() if node.verb == verb) or "(?!)"


def requests(jobs):
    """What the jobs will ask SLURM for at their first attempt, by rule; light rules stay here."""
    found = {}
    for job in jobs:
        if not job.is_local:
            ask = job.resources.get
            found[job.rule.name] = Request(
                cpus=ask("cpus_per_task") or job.threads,
                memory_mb=ask("mem_mb") or 0,
                minutes=ask("runtime") or 0,
                gpus=ask("gpu") or 0,
                gpu_model=ask("gpu_model"),
                partition=ask("slurm_partition"),
                nodes=ask("nodes") or 1,
                mpi=ask("mpi"),
            )
    return found


def no_such_recipe(wildcards):
    known = ", ".join(configuration.recipes) or "none"
    hint = did_you_mean(wildcards.name, configuration.recipes)
    raise WorkflowError(f"{configuration.name} has no recipe `{wildcards.name}`{hint} There are: {known}")
