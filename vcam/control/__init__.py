"""The control server: API and panel on the loopback address."""
