"""Systems in training: their configuration, step functions, the loop, and resuming exactly."""
