"""The verbs, one module each; `bettersynth.configuration.verb` says what a verb is and how to add one."""

import bettersynth.configuration  # noqa: F401 - it collects the verbs, and must not find one half read
