"""The one training loop, its observers, and what stands between flags and a run."""
