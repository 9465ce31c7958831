"""What every room stands on: errors, registries, seeds, spans and schedules, files. Imports nothing of ours."""
