"""How designs are proposed: one strategy a module, and what each needs."""
