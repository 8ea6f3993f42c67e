"""The families of networks: each turns options into a plan, without a tensor."""
