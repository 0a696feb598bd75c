"""Real servers on loopback, for contract and system tests, the demo and the benches.."""
