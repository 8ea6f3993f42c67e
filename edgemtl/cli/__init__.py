"""The command line: one file per verb, no work of its own."""
