"""`vcam suite`: clips, profiles and settings, and other systems' films, measured side by side into one report."""
