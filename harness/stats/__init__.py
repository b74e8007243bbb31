"""Statistics as pure functions: rates, intervals, paired tests, correction for an imperfect judge."""
