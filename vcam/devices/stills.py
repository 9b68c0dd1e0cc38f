"""What a running camera shows of a picture's file."""

from vcam.video.pictures import read_still

__all__ = ["read_still"]
