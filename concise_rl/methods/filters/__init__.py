"""Which rows teach: each filter leaves rows out of baselines, histories and the loss. Not here: judging."""
