"""The engine in a process of its own: a crash, an out-of-memory or a driver's reset ends the child, never the camera.

translator.py starts engines, exchanges them and has them built; process.py is one child as the daemon sees it, child.py
as it sees itself; factories.py makes the engine in it. messages.py and shared_pictures.py are what passes between
the two; limits.py decides when an engine counts as dead and when the next one is started.
"""
