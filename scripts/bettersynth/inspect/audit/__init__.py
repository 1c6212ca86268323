"""The chain of a run from its raw files to its report, held together by files alone: every link is looked at.

Links come in the order of the graph, so that the first that is broken is the one to mend; what follows from it may be
broken with it. What is not made yet is no broken link. Cards of earlier versions carry no seal, and are held against
what can be made again.
"""

from __future__ import annotations

from bettersynth.core.digests import TOLD_SECONDS
from bettersynth.core.progress import progress
from bettersynth.inspect.audit import datasets, evaluation, pool, report, training
from bettersynth.inspect.audit.links import Audited, Link
from bettersynth.workflow.manifest import Problem

__all__ = ["Audited", "Link", "every_link", "look_at_all"]


def every_link(audited: Audited) -> list[Link]:
    """Every link of the run as it is configured now, of what is there, in the order of the graph."""
    return [link for phase in (pool, datasets, training, evaluation, report) for link in phase.links(audited)]


def look_at_all(audited: Audited) -> tuple[int, list[Problem]]:
    """How many links there are, and what is wrong with each, in order, with the command that mends it."""
    found = every_link(audited)
    looked_at = progress(found, len(found), "links", least=TOLD_SECONDS)
    return len(found), [problem for link in looked_at for problem in audited.look_at(link)]
