"""How often somebody may guess a password: told apart by account, by address, and by both together.

From one address an account may be tried a few times. Whoever tries many accounts runs into the limit of the address;
whoever tries one account from many addresses, into the limit of the account, which is wider, so that a stranger's
guesses keep nobody from logging in for long.
"""

from datetime import timedelta

from tidemill.api.http.limits import Attempts
from tidemill.chassis.clock import Clock

PER_ACCOUNT_AND_ADDRESS = 10
PER_ACCOUNT = 50
PER_ADDRESS = 100
WITHIN = timedelta(minutes=5)


class Guesses:
    """The failed logins of the last minutes, as this replica saw them."""

    def __init__(self, clock: Clock) -> None:
        self._both = Attempts(clock, allowed=PER_ACCOUNT_AND_ADDRESS, window=WITHIN)
        self._account = Attempts(clock, allowed=PER_ACCOUNT, window=WITHIN)
        self._address = Attempts(clock, allowed=PER_ADDRESS, window=WITHIN)

    def wait_for(self, email: str, address: str) -> timedelta | None:
        """Return how long to wait before the next guess, or None when it may be made now."""
        waits = (
            self._both.wait_for((email, address)),
            self._account.wait_for(email),
            self._address.wait_for(address),
        )
        return max((each for each in waits if each is not None), default=None)

    def first_refusal(self, email: str, address: str) -> bool:
        """Return whether one of the limits refuses somebody for the first time in its window.

        These refusals are audited. Each comes after as many failures as the limit allows, which were audited too, so
        that a flood of guesses can't fill the audit log.
        """
        return any(
            [
                self._both.first_refusal((email, address)),
                self._account.first_refusal(email),
                self._address.first_refusal(address),
            ]
        )

    def begin(self, email: str, address: str) -> None:
        """Count a login as failed before its outcome is known, so that many at once are counted too."""
        self._both.begin((email, address))
        self._account.begin(email)
        self._address.begin(address)

    def succeeded(self, email: str, address: str) -> None:
        """Forget the failures of the account; of the address only this one, or its own account would free a guesser."""
        self._both.succeeded((email, address))
        self._account.succeeded(email)
        self._address.forgive(address)
