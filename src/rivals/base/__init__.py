"""What every package uses: norm balls, durations, schedules, random streams, devices, errors, files, hashes."""
