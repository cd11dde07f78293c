"""The networks of the published systems, initialised from a seed of their own."""
