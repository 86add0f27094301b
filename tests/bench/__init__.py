"""What `make bench` measures: medians and ratios, side by side with the machine's own calibration."""
