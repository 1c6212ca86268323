"""The explorer: one page in which thresholds are chosen by looking, and which ends in a line of configuration."""
