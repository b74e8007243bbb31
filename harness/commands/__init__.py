"""The commands of `harness` beyond run, report, ls and doctor; one file a subject."""
