"""What the api can be given from outside, and what its parts expect of each other.

An extension adds routes with `[project.entry-points."tidemill.api.routes"] mine = "package.module:ROUTES"`, where
ROUTES is a tuple of Route: the same rows as ours, under the same policy.
"""

ROUTES_GROUP = "tidemill.api.routes"
"""Entry points that are tuples of `tidemill.api.http.route.Route`."""
