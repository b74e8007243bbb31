"""Tasks a model should stay good at, as lm-eval YAML with the data beside it; see README.md."""
