"""The running camera: threads, cards, pacing and shutting down."""
