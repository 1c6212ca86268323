"""Versions of what our code computes, by phase: raised with a change that changes results, which are then made again.

Comments and layout change nothing and raise nothing. Operators and benchmarks have their own versions.
"""

INGEST = 1
DATASET = 1
TRAINSET = 1
INSTRUCTIONS = 1
EXPORT = 2
GENERATE = 2
TRAIN = 2
ANSWER = 1
WORDS = 1
"""How captions are cut into words, by which they are cleaned and compared."""
REPORT = 1
