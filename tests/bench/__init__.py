"""What `make bench` measures: medians and ratios, side by side with the machine's own calibration and with peers.

calibration.py     what this machine can do at all
measurements/      one file each: P1, P4, P5, P8 ... of a Tidemill that was started for it
peers/             one program each, run in a venv of its own by the same loops
goals.py           what we aim for
report/            the table, the plot and the file of raw medians
"""
