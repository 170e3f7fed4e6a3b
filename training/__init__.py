"""The one training loop, the run folder, and the hardware it runs on."""
