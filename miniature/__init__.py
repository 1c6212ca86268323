"""A small world with known truth: scenes, captions that are right or wrong by construction, and questions.

`world` samples and draws scenes, `captions` describes them, `defects` spoils pairs in known proportions,
`questions` asks about them, and `render` writes it all in the contest's file layout.
"""
