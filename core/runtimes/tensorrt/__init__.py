"""TensorRT: running a plan, building it, and the cache of plans."""
