"""What `make gpu` finds out, and its page."""
