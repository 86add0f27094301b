"""JavaScript for expressions that users write: evaluated in processes that have nothing to steal and nothing to break.

A few processes of our own hold the engine (quickjs-ng) and no descriptor but the one to us. Before the first expression
they become an ordinary user, bound their memory and give up every system call that evaluating does not need. Each
expression has a new context; what it sees is given to it (`known`) or asked for through us (`Scope`).

    JavaScript ──borrow──▶ Evaluator (one process) ◀──socket──▶ inside/main.py ──▶ one context an expression
        │                      │
        └─ replaces it ◀───────┘ when it exceeded time, memory or output, or died

An expression is one expression or several statements; the value of the last one, or what is returned, counts, and
`await` may stand anywhere. Values pass as JSON: `undefined` and NaN become null, and numbers are those of JavaScript,
so that integers beyond 2^53 lose digits and 1.0 becomes 1. Local time is UTC.
"""

from tidemill.chassis.javascript.evaluator import EvaluationFailed, JavaScriptUnavailable, Refused, Scope
from tidemill.chassis.javascript.pool import JavaScript
from tidemill.chassis.javascript.settings import JavaScriptSettings

__all__ = ["EvaluationFailed", "JavaScript", "JavaScriptSettings", "JavaScriptUnavailable", "Refused", "Scope"]
