"""Data of others: replies that were recorded elsewhere, read row by row."""
