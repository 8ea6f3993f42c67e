"""The agent: what edgemtl runs on a board over ssh. Standard library, numpy and the board's runtime; Python 3.8."""
