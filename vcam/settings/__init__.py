"""What a person may choose: profiles, config.toml, command line, and what follows from them."""
