"""How far a map can be trusted: places drawn for people to judge, and what their verdicts mean."""
