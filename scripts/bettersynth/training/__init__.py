"""From rows to a checkpoint: training file, MGM, exports, model card."""
