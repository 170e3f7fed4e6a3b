"""Images and labels: where they come from, what noise does to labels, how batches are augmented and served."""
