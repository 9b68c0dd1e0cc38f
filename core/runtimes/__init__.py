"""The engine's calls run in other ways than eager PyTorch."""
