"""Films and figures without a camera: translate, evaluate, bench."""
