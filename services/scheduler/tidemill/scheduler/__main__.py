"""`python -m tidemill.scheduler`: the scheduler as a process of its own."""

from tidemill.chassis.service import main
from tidemill.scheduler.service import SERVICE

main(SERVICE)
