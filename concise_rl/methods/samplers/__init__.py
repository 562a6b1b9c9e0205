"""How the rows of a group come about: plainly, cut, forced, continued. Not here: the model that samples."""
