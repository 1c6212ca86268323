"""Where a dataset comes from, in words: step by step from the pool, with the rows that stayed and went."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path

from bettersynth.configuration.checks import did_you_mean
from bettersynth.configuration.evaluation import BENCHMARKS
from bettersynth.configuration.recipes import recipe_training, recipe_trainset
from bettersynth.configuration.types import Configuration, Recipe
from bettersynth.configuration.wording import listed
from bettersynth.core.errors import PersonError
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.datasets.trial import counted_rows
from bettersynth.workflow.digests import is_here
from bettersynth.workflow.expected import Basis
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.plan import Plan

WIDTH = 110
INDENT = "     "
MOST_REASONS = 4


class UnknownNameError(PersonError, LookupError):
    """The configuration has no dataset or recipe of this name; the message lists those it has."""


class Explanation:
    """Explains the datasets and recipes of one configuration, from its file and from the results that are there."""

    def __init__(self, configuration: Configuration, config: str | Path, layout: Layout) -> None:
        self.configuration = configuration
        self.config = config
        self.layout = layout
        self.plan = Plan(configuration)
        self.expected = counted_rows(Jobs(configuration, layout, self.plan))

    def dataset(self, name: str) -> str:
        """The dataset, each step on the way to it, and how to make it; raises UnknownNameError for no such name."""
        self._check("dataset", name, [POOL, *self.configuration.datasets])
        recipes = [key for key, recipe in self.configuration.recipes.items() if recipe.dataset == name]
        trained = f" Trained by the recipe{'s' * (len(recipes) > 1)} {listed(recipes)}." if recipes else ""
        lines = [f"Dataset {name}: {self.expected.rows(name)}.{trained}", "", *self._steps(name)]
        if self.expected.card(name) is None:
            target = self.layout.dataset_card(name)
            lines += ["", f"To make it: snakemake --configfile {self.config} --cores all -- {target}"]
        return "\n".join(lines)

    def recipe(self, name: str) -> str:
        """The recipe: what it trains on and where that comes from, its runs so far, its published figures."""
        self._check("recipe", name, self.configuration.recipes)
        recipe = self.configuration.recipes[name]
        lines = [f"Recipe {name}: trains on {recipe.dataset}, {self._trainset(name)}.", *_wrapped(recipe.note or "")]
        lines += [*_published(recipe), "", *self._steps(recipe.dataset), "", *self._runs(name)]
        if not self._current(name) or any(not self._finished(name, seed) for seed in recipe.seeds):
            lines += ["", f"To run it: make run CONFIG={self.config} RECIPE={name}"]
        return "\n".join(lines)

    def _check(self, kind: str, name: str, accepted: Collection[str]) -> None:
        if name not in accepted:
            guess = did_you_mean(name, accepted)
            raise UnknownNameError(f"{self.config} has no {kind} `{name}`{guess}; it has: {listed([*accepted])}")

    # steps
    def _steps(self, name: str) -> Iterator[str]:
        """A paragraph for each dataset from the pool to `name`."""
        for number, step in enumerate((POOL, *self.plan.lineage(name)), 1):
            if number > 1:
                yield ""
            heading = f"{number:>3}. {step}"
            if step == POOL:
                yield f"{heading}: {self.expected.rows(POOL)}"
                yield from self._pool()
                continue
            node = self.plan.dataset(step)
            yield from _wrapped(f"{heading}: of {node.from_}, {node.verb.sentence(self.configuration)}", hang=True)
            yield from _wrapped(node.note or "")
            yield from _wrapped(self._ledger(step))
            yield from self._statement(step)
            yield from self._scores(step)

    def _pool(self) -> Iterator[str]:
        for file in self.configuration.pool.files:
            ledger = self.layout.file_ledger(file.name)
            if not ledger.exists():
                there = "not read yet" if is_here(file) else "not there yet"
                yield from _wrapped(f"{file.name}: {file.path}, {there}, {file.shards} shards")
                continue
            card = read_json(ledger)
            refused = sum(card["quarantined"].values())
            why = f" ({_reasons(card['quarantined'])})" if refused else ""
            yield from _wrapped(
                f"{file.name}: {card['lines']:,} lines of {file.path} = {card['rows']:,} records "
                f"+ {refused:,} in quarantine{why}"
            )
        card = self.expected.card(POOL)
        if card and card["duplicate_across_files"]:
            yield from _wrapped(f"{card['duplicate_across_files']:,} ids are in two files; the earlier file's stay")

    def _ledger(self, name: str) -> str:
        """Rows in, out and dropped of a dataset that is made; else what is expected."""
        card = self.expected.card(name)
        if card is None:
            stale = self.layout.dataset_card(name).exists()
            made = "results there are of an earlier definition or other parents" if stale else "not made yet"
            return f"{self.expected.rows(name)}; {made}"
        ledger = card["ledger"]
        parts = [f"{ledger['in']:,} rows in"]
        if ledger["added"]:
            parts.append(f"{ledger['added']:,} added")
        parts.append(f"{ledger['out']:,} out")
        if ledger["changed"]:
            parts.append(f"{ledger['changed']:,} of them changed")
        if ledger.get("unmatched"):
            parts.append(f"{ledger['unmatched']:,} rewritten without a better version")
        if ledger.get("near"):
            parts.append(f"{ledger['near']:,} too near a threshold to be the same on every device")
        if ledger["dropped"]:
            parts.append(f"{sum(ledger['dropped'].values()):,} dropped: {_reasons(ledger['dropped'])}")
        return ", ".join(parts)

    def _statement(self, name: str) -> Iterator[str]:
        """What was published of the dataset, beside what was made."""
        published = self.expected.published(name)
        rows, basis = self.expected.rows(name)
        if published is not None and basis == Basis.MADE:
            relation = f", {rows / published:.1%} of that here" if published else ""
            yield from _wrapped(f"published: {published:,} rows{relation}")

    def _scores(self, name: str) -> Iterator[str]:
        """Scores that the dataset's verb reads, and whether they are there."""
        for source, operator in self.plan.scores(name):
            definition = self.configuration.operators[operator]
            by = f"{definition.op}{f' with {definition.model}' if definition.model else ''}"
            yield from _wrapped(f"reads {operator} of {source} ({by}): {self._progress(source, operator)}")

    def _progress(self, source: str, operator: str) -> str:
        """Whether an operator's scores are there or, as long as they are not, how many shards it has scored."""
        path = self.layout.scores(source, operator)
        if path.exists():
            return "there"
        scored = {card.stem.rpartition("-")[0] for card in path.with_suffix("").glob("*.json")}
        done = f", {len(scored)} of {len(self.plan.shards(source))} shards are" * bool(scored)
        return f"not there yet{done}"

    # runs
    def _trainset(self, name: str) -> str:
        settings = recipe_trainset(self.configuration, name)
        whole = self.expected.rows(self.configuration.recipes[name].dataset)
        rows = self.expected.trainset(name)
        if rows.number < whole.number:
            return f"{whole}, cut to {rows.number:,} by the kit's random sample (seed {settings.cap_seed})"
        if rows.number > whole.number:
            return f"{whole}, filled up to {rows.number:,} (seed {settings.cap_seed})"
        return str(whole)

    def _runs(self, name: str) -> Iterator[str]:
        """Steps of training, then a line for each seed: how far it is and what it scored."""
        recipe = self.configuration.recipes[name]
        training = recipe_training(self.configuration, name)
        rows, basis = self.expected.trainset(name)
        steps = int(rows / training.pretrain.global_batch * training.pretrain.epochs)
        most = "at most " * (basis == Basis.AT_MOST)
        stage = f"Stage 1: {most}{steps:,} steps of {training.pretrain.global_batch}"
        rate = f"learning rate {training.pretrain.learning_rate:g}"
        yield f"{stage}, {rate}; stage 2 on {training.finetune.instructions}."
        for pick in training.probe.picks:
            when = pick.words[0].upper() + pick.words[1:]
            yield f"{when} the {pick.keep} seeds with the lowest loss go on."
        if self.layout.trainset_card(name).exists() and not self._current(name):
            yield "The runs there are of an earlier training file:"
        for seed in recipe.seeds:
            yield f"{INDENT}seed {seed}: {self._state(name, seed)}"

    def _current(self, name: str) -> bool:
        """Whether the recipe's training file is there and was made from the present rows of its dataset."""
        path, dataset = self.layout.trainset_card(name), self.configuration.recipes[name].dataset
        card = self.expected.card(dataset)
        return card is not None and path.exists() and read_json(path)["inputs"].get(dataset) == card["sha256"]

    def _state(self, name: str, seed: int) -> str:
        """How far a seed is, or what it scored."""
        found = []
        for key, benchmark in self.configuration.benchmarks.items():
            path = self.layout.result(name, seed, key)
            if path.exists():
                result = read_json(path)
                if result["status"] == "stopped":
                    return self._fate(name, seed)
                found.append(f"{benchmark.title} {result['accuracy']:.4f}")
        if found:
            return ", ".join(found)
        stages = {"stage 2": self.layout.finetune, "stage 1": self.layout.pretrain, "the probe": self.layout.probe}
        done = (stage for stage, folder in stages.items() if (folder(name, seed) / "card.json").exists())
        return f"{next(done, None) or 'nothing'} done"

    def _fate(self, name: str, seed: int) -> str:
        """Why there is no result of a seed."""
        path = self.layout.finetune(name, seed) / "card.json"
        card = read_json(path) if path.exists() else {}
        return f"failed: {card['why']}" if card.get("fate") == "failed" else "stopped after the probe"

    def _finished(self, name: str, seed: int) -> bool:
        return all(self.layout.result(name, seed, benchmark).exists() for benchmark in self.configuration.benchmarks)


def _published(recipe: Recipe) -> Iterator[str]:
    """The published figures of a recipe, where the configuration states some."""
    if not (stated := recipe.published):
        return
    figures = [f"{stated.rows:,} rows"] if stated.rows is not None else []
    figures += [f"{BENCHMARKS[name].title} {ratio:g} times the baseline" for name, ratio in stated.ratios.items()]
    source = f" ({stated.source})" if stated.source else ""
    row = f" as row {stated.row}" if stated.row else ""
    yield from _wrapped(f"published{row}: {', '.join(figures) or 'no figures'}{source}")


def _reasons(dropped: dict[str, int]) -> str:
    """Reasons and their counts, the commonest first: `12 words_num.num_words below 6, 3 …`; a single one alone."""
    if len(dropped) == 1:
        return next(iter(dropped))
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {reason}" for reason, count in ordered[:MOST_REASONS]]
    rest = sum(count for _, count in ordered[MOST_REASONS:])
    return ", ".join([*named, f"{rest:,} for {len(ordered) - MOST_REASONS} more reasons"] if rest else named)


def _wrapped(text: str, *, hang: bool = False) -> list[str]:
    """The text in lines of the page's width, indented; with `hang`, all but the first."""
    first = "" if hang else INDENT
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=INDENT, break_on_hyphens=False)
