"""What a flow does next, decided without looking at anything but what it is given."""
