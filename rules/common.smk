# What jobs ask for, and what the targets gather.


def results(recipe):
    """Result files of a recipe: every seed, every benchmark."""
    return [
        layout.result(recipe, seed, benchmark)
        for seed in configuration.recipes[recipe].seeds
        for benchmark in configuration.benchmarks
    ]


def exports():
    """Cards of all exported datasets."""
    return [
        layout.export(dataset, form) / "card.json" for dataset, forms in configuration.exports.items() for form in forms
    ]


def requests(due):
    """What the jobs will ask SLURM for at their first attempt, by rule; light rules stay here."""
    found = {}
    for job in due:
        if not job.is_local:
            found[job.rule.name] = Request.of(job.resources.get, job.threads)
    return found


def imports(due):
    """What the scripts of these jobs import, each once."""
    found = set()
    for job in {job.rule.name: job for job in due}.values():
        found.update(imported_by(Path(workflow.basedir, "scripts", Path(job.rule.script).name)))
        found.update(jobs.job(job.rule.name, job.wildcards_dict).rule.imports)
    return sorted(found)


def no_such_recipe(wildcards):
    known = ", ".join(configuration.recipes) or "none"
    hint = did_you_mean(wildcards.name, configuration.recipes)
    raise WorkflowError(f"{configuration.name} has no recipe `{wildcards.name}`{hint} There are: {known}")
