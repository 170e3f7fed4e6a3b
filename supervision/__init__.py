"""What a classifier is trained on: target distributions, the prediction table, the losses."""
