"""The sections of a report: each is HTML made from a run folder, empty if the run has nothing for it."""
