"""`python -m tidemill.audit`: the audit service as a process of its own."""

from tidemill.audit.service import SERVICE
from tidemill.chassis.service import main

main(SERVICE)
