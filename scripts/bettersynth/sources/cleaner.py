"""The generator of the verb `clean`: captions by rules, and only those in the languages that are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bettersynth.configuration.types import Configuration
from bettersynth.core.records import Record, caption_of
from bettersynth.operators.batched.load import load_scorer
from bettersynth.operators.scoring import operator_facts
from bettersynth.pool.images import ImageRoots
from bettersynth.sources.base import Generation, Made
from bettersynth.sources.cleaning import OTHER_LANGUAGE, Cleaning, Language, clean_text


class Cleaner:
    """Cleans captions in no time, so that nothing is kept for later; its facts say what was repaired."""

    resumes = False

    def __init__(self, parameters: Cleaning, configuration: Configuration, roots: ImageRoots) -> None:
        self.parameters = parameters
        self.facts: dict[str, Any] = {"repaired": {}}
        if parameters.language:
            self.facts["language"] = operator_facts(parameters.language.operator, configuration)
        self._configuration = configuration
        self._roots = roots

    def open(self) -> None:
        """It has no model of its own."""

    def make(self, records: Sequence[Record]) -> Iterator[Made]:
        """All records with clean captions, at one time."""
        cleaned = [clean_text(record.text, self.parameters) for record in records]
        self.facts["repaired"] = dict(sorted(Counter(kind for found in cleaned for kind in found.repairs).items()))
        generations = [
            Generation([], found.reason) if found.text is None else Generation([record._replace(text=found.text)])
            for record, found in zip(records, cleaned, strict=True)
        ]
        if self.parameters.language:
            generations = self._in_language(generations, self.parameters.language)
        yield dict(enumerate(generations))

    def _in_language(self, generations: list[Generation], language: Language) -> list[Generation]:
        """Without the records whose captions the operator takes for another language, or for none with confidence."""
        captions = [Record(record.id, caption_of(record.text), []) for made in generations for record in made.records]
        if not captions:
            return generations
        scorer = load_scorer([language.operator], self._configuration)
        stats = iter(scorer.score(captions, self._roots)[language.operator].stats)

        def kept(generation: Generation) -> Generation:
            if not generation.records:
                return generation
            found = next(stats)
            right = found["lang"] in language.one_of and found["lang_score"] >= language.min
            return generation if right else Generation([], OTHER_LANGUAGE)

        return [kept(generation) for generation in generations]
