"""Networks in torch: the supernet, the static nets extracted from it, their blocks and experts."""
