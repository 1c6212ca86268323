"""What is known of a rule's jobs, told once: rule blocks, needs, bundles, costs, status and provenance read it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from bettersynth.configuration.training import Finetune
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import files_below
from bettersynth.core.layout import Layout
from bettersynth.workflow.expected import Basis, Expected, Rows
from bettersynth.workflow.fingerprints import Fingerprints
from bettersynth.workflow.needs import NOTHING, Needs
from bettersynth.workflow.passes import Passes
from bettersynth.workflow.plan import Plan

RESUME = "checkpoints/"
"""What a killed training goes on from, below its folder; not needed once it is done."""


class Kind(StrEnum):
    """Where a job runs: the least that it needs."""

    LIGHT = "light"
    """Seconds of arithmetic over small tables: runs where Snakemake runs."""
    CPU = "cpu"
    GPU = "gpu"


class Ask(NamedTuple):
    """What a job asks a cluster for at its first attempt; memory and time grow with every attempt."""

    cpus: int
    memory_mb: int
    minutes: int
    minutes_an_input: int = 0

    @property
    def resources(self) -> dict[str, Any]:
        """As Snakemake takes it."""
        return {
            "cpus_per_task": self.cpus,
            "mem_mb": lambda wildcards, attempt: self.memory_mb * attempt,
            "runtime": lambda wildcards, input, attempt: (self.minutes + self.minutes_an_input * len(input)) * attempt,
        }


ONE_GPU = {"gpu": 1, "nodes": 1}
"""What every job of `Kind.GPU` asks for; `nodes` keeps GPUs together where a profile asks for more."""


class Fingerprinted(str):
    """Path of an input whose contents are among the parameters, so that Snakemake need not look at its time."""


class Work(NamedTuple):
    """What a job does of one kind; a job that scores by several operators does several."""

    phase: str
    what: str
    kind: str
    """Work of one kind goes equally fast: the rate of past jobs of the kind is the rate of those to come."""
    amount: Rows
    unit: str


class Evidence(NamedTuple):
    """Where it stands how long past work took: its kind, what the report adds it up under, its card and results."""

    kind: str
    heading: str
    card: Path
    files: list[Path]


Files = Path | str | list[Path] | list[Fingerprinted] | list[str]


class ImagesOfRecords(NamedTuple):
    """The images of all records of a table."""

    table: Path


class ImagesOfDataset(NamedTuple):
    """The images of a dataset's rows or, while these are not chosen, of all that they may be chosen from."""

    dataset: str


class ImagesOfList(NamedTuple):
    """The images that a LLaVA list names, below a folder or, if it is a training file's, where the pool's are."""

    list: Path
    folder: Path | None = None


class ImagesOfInstructions(NamedTuple):
    """The images that the instruction set of a stage names, whatever else is wrong with its rows."""

    stage: Finetune


Read = Path | ImagesOfRecords | ImagesOfDataset | ImagesOfList | ImagesOfInstructions
"""A file, or the images that others name: these modules cannot open them."""


@dataclass(frozen=True)
class Context:
    """What the specifications of one run look at."""

    configuration: Configuration
    layout: Layout
    plan: Plan
    fingerprints: Fingerprints
    passes: Passes
    expected: Expected


class Job(NamedTuple):
    """One job: a rule and the values of its wildcards."""

    rule: Rule
    wildcards: Mapping[str, str]

    @property
    def log(self) -> Path:
        """Its log."""
        return self.rule.log_of(**self.wildcards)

    @property
    def benchmark(self) -> Path:
        """Where Snakemake writes down how long it took."""
        return self.rule.benchmark_of(**self.wildcards)

    @property
    def outputs(self) -> dict[str, Files]:
        """What it makes, by name."""
        return self.rule.outputs(**self.wildcards)

    @property
    def result(self) -> Path:
        """The last thing that it makes: its card, where it has one."""
        return self.rule.result(**self.wildcards)

    @property
    def needs(self) -> Needs:
        """Models and staged files that it loads."""
        return self.rule.needs(**self.wildcards)

    @property
    def also_reads(self) -> Iterator[Read]:
        """What it reads beside its declared inputs and what goes with those."""
        return self.rule.also_reads(**self.wildcards)

    def companions(self, output: Path) -> Iterator[Read]:
        """What goes with one of its outputs, so that another job can read that."""
        return self.rule.companions(output, **self.wildcards)

    @property
    def evidence(self) -> list[Evidence]:
        """Where it stands how long it took, once it is done."""
        return list(self.rule.evidence(**self.wildcards))

    @property
    def work(self) -> list[Work]:
        """What it does, by kind."""
        return self.rule.work(**self.wildcards)

    @property
    def tries(self) -> list[Path]:
        """Logs of earlier tries that did not end well."""
        return self.rule.tries_of(**self.wildcards)

    @property
    def title(self) -> str:
        """What it is about, in few words."""
        return self.rule.title.format(**self.wildcards)

    @property
    def group(self) -> str:
        """The phase that `make status` counts it in."""
        return self.rule.group.format(rule=self.rule.name, **self.wildcards)

    @property
    def block(self) -> str:
        """The name of its rule block."""
        return self.rule.block_name(**self.wildcards)

    @property
    def comment(self) -> str:
        """What Snakemake calls it in SLURM's queue."""
        values = () if self.rule.block_each else self.wildcards.values()
        return f"rule_{self.block}" + (f"_wildcards_{'_'.join(values)}" if values else "")

    @property
    def is_due(self) -> bool:
        """Whether the run as it is configured now would still run it, if it failed."""
        return self.rule.is_due(**self.wildcards)


class Rule(ABC):
    """The specification of one rule. Methods that tell of one job take the values of its wildcards by name."""

    name: ClassVar[str]
    wildcards: ClassVar[tuple[str, ...]] = ()
    """In the order in which they stand in the first output."""
    block_each: ClassVar[bool] = False
    """Whether each value of the wildcard has a rule block of its own, `<name>_<value>`."""
    kind: ClassVar[Kind] = Kind.LIGHT
    asks: ClassVar[Ask | None] = None
    """What a job asks for at the contest's size; None for what a profile has as default."""
    imports: ClassVar[tuple[str, ...]] = ()
    """What its jobs import that takes seconds, beside what its script names."""
    log_name: ClassVar[str]
    """Name of the log below `logs/<configuration>/`, without its ending."""
    says: ClassVar[str]
    """What Snakemake announces a job with."""
    title: ClassVar[str] = ""
    """What a job is about, as `make status` names it."""
    phase: ClassVar[str] = "other"
    """The phase that its costs are told in, one of `bettersynth.inspect.cost.PHASES`."""
    heading: ClassVar[str] = ""
    """What the report adds up the seconds of its jobs under; empty for rules whose cards tell none."""
    keeps_folder: ClassVar[bool] = False
    """Whether all that lies beside its card is its result, too."""
    knows_reads: ClassVar[bool] = True
    """Whether it is known beforehand which files a job reads."""
    sees_everything: ClassVar[bool] = False
    """Whether it looks at everything that was ever made, so that it runs where all of it is."""
    group: ClassVar[str] = ""
    """The phase that `make status` counts it in; empty for rules that it does not count."""

    def __init__(self, context: Context) -> None:
        self.configuration, self.layout, self.plan = context.configuration, context.layout, context.plan
        self.fingerprints, self.passes = context.fingerprints, context.passes
        self.expected = context.expected

    # one job
    def inputs(self, *_: Any, **wildcards: Any) -> dict[str, Files]:
        """What it declares to read, by name."""
        return {}

    @abstractmethod
    def outputs(self, *_: Any, **wildcards: Any) -> dict[str, Files]:
        """What it makes, by name, the card last."""

    def parameters(self, *_: Any, **wildcards: Any) -> dict[str, Any]:
        """What decides, beside its inputs, whether it runs again."""
        return {}

    def needs(self, *_: Any, **wildcards: Any) -> Needs:
        """Models and staged files that it loads."""
        return NOTHING

    def also_reads(self, *_: Any, **wildcards: Any) -> Iterator[Read]:
        """What it reads beside its declared inputs and what goes with those."""
        return iter(())

    def companions(self, output: Path, *_: Any, **wildcards: Any) -> Iterator[Read]:
        """What goes with one of its outputs, so that another job can read that."""
        if self.keeps_folder:
            files = files_below(output.parent)
            yield from (path for name, path in files.items() if not name.startswith(RESUME) and path != output)

    def makes(self, *_: Any, **wildcards: Any) -> bool:
        """Whether it, and no other rule with outputs of the same names, makes those of these wildcards."""
        return True

    def amount(self, *_: Any, **wildcards: Any) -> Rows:
        """How much there is to do."""
        return Rows(0, Basis.MADE)

    unit: ClassVar[str] = ""
    """What the amount counts."""

    def work_kind(self, *_: Any, **wildcards: Any) -> str:
        """What goes equally fast; see `Work.kind`."""
        return "other"

    def what(self, *_: Any, **wildcards: Any) -> str:
        """What a dry run calls the work."""
        return self.name

    def work(self, *_: Any, **wildcards: Any) -> list[Work]:
        """What a job does, by kind."""
        kind, amount = self.work_kind(**wildcards), self.amount(**wildcards)
        return [Work(self.phase, self.what(**wildcards), kind, amount, self.unit)]

    def evidence(self, *_: Any, **wildcards: Any) -> Iterator[Evidence]:
        """Where it stands how long the job took, once it is done."""
        if self.heading:
            heading = self.heading.format(rule=self.name, **wildcards)
            card = self.result(**wildcards)
            yield Evidence(self.work_kind(**wildcards), heading, card, self._results(card, **wildcards))

    def _results(self, card: Path, **wildcards: Any) -> list[Path]:
        if self.keeps_folder:
            return [card.parent]
        return [path for path in _paths(self.outputs(**wildcards)) if path != card]

    def is_due(self, *_: Any, **wildcards: Any) -> bool:
        """Whether the run as it is configured now would still run a job that failed."""
        return True

    def every(self) -> Iterator[tuple[str, ...]]:
        """Wildcards of each job of a whole run of the configuration, as far as they are known beforehand."""
        yield ()

    # what follows
    def log_of(self, **wildcards: Any) -> Path:
        """A job's log."""
        return self.layout.logs / f"{self.log_name.format(**wildcards)}.log"

    def benchmark_of(self, **wildcards: Any) -> Path:
        """Where Snakemake writes down how long a job took."""
        return self.layout.benchmarks / f"{self.log_name.format(**wildcards)}.tsv"

    def result(self, **wildcards: Any) -> Path:
        """The last of a job's outputs."""
        *_, last = self.outputs(**wildcards).values()
        return Path(str(last))

    def block_name(self, **wildcards: str) -> str:
        """The name of the rule block."""
        return "_".join([self.name, *wildcards.values()]) if self.block_each else self.name

    def job(self, *values: str) -> Job:
        """The job with these values of the wildcards."""
        return Job(self, dict(zip(self.wildcards, values, strict=True)))

    def jobs(self) -> Iterator[Job]:
        """Each job of a whole run, as far as they are known beforehand."""
        return (self.job(*values) for values in self.every())

    def maker(self, file: Path) -> Job | None:
        """The job that makes a file, if it is the rule's."""
        for values in self.every() if self.block_each else [()]:
            fixed = dict(zip(self.wildcards, values, strict=False))
            for pattern in _paths(self.outputs(**self._open(fixed))):
                found = _regex(pattern).fullmatch(str(file))
                if found and self.makes(**(wildcards := fixed | found.groupdict())):
                    return self.job(*(wildcards[name] for name in self.wildcards))
        return None

    def tries_of(self, **wildcards: Any) -> list[Path]:
        """Logs of the job's earlier tries that did not end well."""
        log = self.log_of(**wildcards)
        name = re.compile(rf"{re.escape(log.stem)}\.\d+\.log")
        return sorted(path for path in log.parent.glob(f"{log.stem}.*.log") if name.fullmatch(path.name))

    # what a rule block says; of a block for one value of the wildcard, with that value
    def input(self, name: str, **fixed: str) -> Callable[[Any], Any]:
        """Input function for the input of this name."""
        return lambda wildcards: _declared(self.inputs(**{**fixed, **dict(wildcards.items())})[name])

    def output(self, name: str, **fixed: str) -> Files:
        """Pattern of the output of this name."""
        return self.outputs(**self._open(fixed))[name]

    def log(self, **fixed: str) -> str:
        """Pattern of the log."""
        return str(self.log_of(**self._open(fixed)))

    def benchmark(self, **fixed: str) -> str:
        """Pattern of the benchmark file."""
        return str(self.benchmark_of(**self._open(fixed)))

    def params(self, wildcards: Any) -> dict[str, Any]:
        """All parameters of a job."""
        return self.parameters(**dict(wildcards.items()))

    def param(self, name: str, **fixed: str) -> Callable[[Any], Any]:
        """Function for the parameter of this name."""
        return lambda wildcards: self.parameters(**{**fixed, **dict(wildcards.items())})[name]

    @property
    def resources(self) -> dict[str, Any]:
        """What a job asks for. Profiles and `--set-resources` change it key by key, and wipe nothing else of it."""
        return {**(ONE_GPU if self.kind is Kind.GPU else {}), **(self.asks.resources if self.asks else {})}

    @property
    def message(self) -> str:
        """What Snakemake announces a job with."""
        return self.says.format(**{name: f"{{wildcards.{name}}}" for name in self.wildcards})

    def _open(self, fixed: Mapping[str, str]) -> dict[str, str]:
        return {name: f"{{{name}}}" for name in self.wildcards} | dict(fixed)


def _paths(outputs: Mapping[str, Files]) -> list[Path]:
    """The files of all names."""
    return [Path(str(path)) for files in outputs.values() for path in (files if isinstance(files, list) else [files])]


@cache
def _regex(pattern: Path) -> re.Pattern[str]:
    """What the files of a pattern match, `{wildcard}` for each part that no `/` and no `.` divides."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/.]+)", re.escape(str(pattern))))


def _declared(files: Files) -> Any:
    """The files as Snakemake is told of them."""
    from snakemake.io import ancient  # jobs read specifications too, and need no Snakemake for it

    if isinstance(files, list):
        return [_declared(file) for file in files]
    return ancient(str(files)) if isinstance(files, Fingerprinted) else files
