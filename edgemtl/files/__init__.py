"""Reading and writing files: atomic, hashed, and refused in one line when damaged."""
