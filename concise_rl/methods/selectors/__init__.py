"""One file a selector: stored samples to rows for SFT or to preference pairs."""
