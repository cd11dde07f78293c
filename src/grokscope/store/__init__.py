"""The run directory: readings, the trace database, checkpoints, manifest and export."""
