"""`vcam doctor`: facts about this machine, and what is made of them."""
