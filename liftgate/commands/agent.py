"""`liftgate agent`: makes this serving host serve what the newest release says, once or for ever."""
