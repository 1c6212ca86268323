# From raw image-caption pairs to a leaderboard. Run `make` for the commands, or read README.md.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import update_config

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

try:
    import bettersynth.workflow.jobs
except ImportError as error:
    raise WorkflowError(
        f"{sys.executable} is not the environment that `make setup` makes here ({error}); first: . .venv/bin/activate"
    ) from None
from bettersynth.core import commands
from bettersynth.runtime import driver, gpus
from bettersynth.configuration import NAME_PATTERN, ConfigurationError, configure, read_yaml
from bettersynth.configuration.datasets import EXPORT_FORMATS
from bettersynth.configuration.checks import did_you_mean
from bettersynth.core.layout import Layout
from bettersynth.runtime.patches.forked_jobs import fork_jobs, imported_by
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.manifest import missing, missing_words
from bettersynth.workflow.passes import CHUNK_PATTERN, PASS_PATTERN
from bettersynth.workflow.plan import Plan
from bettersynth.core.records import POOL
from bettersynth.slurm.queue import SlurmError
from bettersynth.slurm.site import Request, refuse_impossible

config_file = str(workflow.configfiles[0] if workflow.configfiles else "config/miniature.yaml")
if Path(config_file).is_relative_to(Path.cwd()):
    config_file = str(Path(config_file).relative_to(Path.cwd()))
try:
    driver.check_path(sys.executable)
    driver.check_folder(Path.cwd())
    contents = [read_yaml(path) for path in workflow.configfiles or [config_file]]  # refuses a key given twice
    if not workflow.configfiles:  # and `--config name=value`, if it is given, is laid over the usual one
        given = dict(config)
        config.update(contents[0])
        update_config(config, given)
    configuration = configure(config, config_file)
    config["name"] = configuration.name
    os.environ[commands.CONFIG_FILE] = os.path.relpath(config_file)  # jobs name it when they say what to do next
    layout = Layout(f"results/{configuration.name}")
    plan = Plan(configuration)
    # what this run is asked for is known once the graph is built
    jobs = Jobs(
        configuration, layout, plan, lambda: workflow.dag_settings.targets or ["all"], looks=workflow.is_main_process
    )
    jobs.fingerprints.check_inputs(config_file)
    driver.claim(layout.claim, config_file, "name" in contents[0])
except (ConfigurationError, driver.DriverError) as error:
    raise WorkflowError(str(error)) from None
if workflow.is_main_process:
    driver.remember_failures()
    driver.allow_readers()
    driver.tell_progress()
    if hint := driver.hint(layout.driver):
        logger.warning(hint)


onstart:
    from bettersynth.inspect import room
    from bettersynth.inspect.cost import Costs

    driver.tell_interrupt()
    driver.warn_of_triggers(workflow.rerun_triggers)
    due = [job for job in workflow.dag.needrun_jobs() if job.output]
    specified = [jobs.job(job.rule.name, job.wildcards_dict) for job in due]
    needs = (job.needs for job in specified)
    if absent := missing(needs, configuration, config_file):
        logger.warning(missing_words(absent))
    if workflow.local_exec:
        driver.look_when_jobs_end(workflow.scheduler)
    if workflow.local_exec and not gpus.visible():
        fork_jobs(imports(due))
    on_slurm = type(workflow.executor_settings).__module__ == "snakemake_executor_plugin_slurm"
    try:
        costs = Costs(
            jobs, Path(workflow.basedir) / "docs" / "measurements", has_gpus=on_slurm or bool(gpus.visible())
        )
        logger.info(room.look(specified, costs, config_file, here=not on_slurm))
        driver.start(layout.driver, log[0], workflow.rundir, workflow.configfiles or [config_file])
        if on_slurm:
            slurm = workflow.executor_settings
            due = requests(workflow.dag.needrun_jobs())
            refuse_impossible(due, slurm.status_command, slurm.partition_config, jobs.on_gpu)
    except (driver.DriverError, SlurmError, room.RoomError) as error:
        raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset=NAME_PATTERN,
    source=NAME_PATTERN,
    operator=NAME_PATTERN,
    recipe=NAME_PATTERN,
    benchmark="|".join(configuration.benchmarks) or "(?!)",
    shard=NAME_PATTERN + r"-\d{4}",
    scoring=PASS_PATTERN,
    chunk=CHUNK_PATTERN,
    seed=r"\d+",


include: "rules/common.smk"
include: "rules/collect.smk"
include: "rules/ingest.smk"
include: "rules/score.smk"
include: "rules/dataset.smk"
include: "rules/generate.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


try:
    known = [rule.name for rule in jobs] + [rule.name for rule in workflow.rules]
    driver.check_names(workflow.resource_settings.overwrite_resources, known)
except driver.DriverError as error:
    raise WorkflowError(str(error)) from None


rule all:
    default_target: True
    input:
        layout.report,
        layout.leaderboard if configuration.recipes else [],
        exports(),
    localrule: True
