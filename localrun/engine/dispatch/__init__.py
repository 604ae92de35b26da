"""From a submission to a supervisor: who queues, who decides, and who waits."""
