"""The tray icon: a process of its own that talks to the running camera as any other client does."""
