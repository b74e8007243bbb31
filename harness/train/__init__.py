"""Training: from triples and a recipe to a checkpoint. Importing this package loads no torch."""
