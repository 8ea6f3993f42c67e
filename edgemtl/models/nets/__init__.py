"""Networks of torch: the supernet, the static nets it gives, their blocks and experts."""
