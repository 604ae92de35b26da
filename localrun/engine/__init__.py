"""How runs are executed: queue, scheduling, dispatcher, supervisor, worker."""
