"""`python -m tidemill.api`: the api as a process of its own."""

from tidemill.api.service import SERVICE
from tidemill.chassis.service import main

main(SERVICE)
