"""Everything that is read or written: whole or not at all, hashed, and refused in one line when it is wrong."""
