"""How many tokens of a row are kept once all rows are judged; a cut row is judged again. Training alone cuts."""
