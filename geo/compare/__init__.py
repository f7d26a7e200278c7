"""Two maps of the same roads: what is new, what has grown, what is gone."""
