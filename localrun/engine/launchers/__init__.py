"""How a run's ranks are started, found and signalled, one launcher for each kind of run."""
