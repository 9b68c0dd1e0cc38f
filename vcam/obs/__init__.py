"""OBS Studio: hotkeys and scenes of OBS switch the running camera; OBS shows its picture."""
