"""An active run: started, watched, ended, and what is written of it."""
