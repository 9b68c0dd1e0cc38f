"""Models: what is known of them, fetching, loading, LoRAs, and the memory that they take."""
