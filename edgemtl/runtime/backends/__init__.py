"""One module for each runtime that opens engines; each imports its runtime only when it opens one."""
