"""`python -m tidemill.worker`: the worker as a process of its own."""

from tidemill.chassis.service import main
from tidemill.worker.service import SERVICE

main(SERVICE)
