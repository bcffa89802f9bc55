"""Music and sounds."""
