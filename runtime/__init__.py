"""What every process shares: settings, errors, deadlines, server, channel, telemetry."""
