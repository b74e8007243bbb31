"""What is asked of a model: behaviors to refuse, look-alikes to answer, tasks to be good at."""

PLUGINS: dict[str, str] = {}
