"""Judges: each reads one reply and says what it is. `PLUGINS` maps a name to its class."""

PLUGINS: dict[str, str] = {
    "rules": "harness.judges.rules:Rules",
    "llm": "harness.judges.llm:LLM",
    "classifier": "harness.judges.classifier:Classifier",
    "vote": "harness.judges.vote:Vote",
}
