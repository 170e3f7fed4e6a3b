"""Learning paths: the predicted distribution of each sample over training."""
