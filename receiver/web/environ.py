"""What worker.py and the application tell each other in the WSGI environment of a request."""

AUTHENTICATED = "receiver.authenticated"
"""Set by the application once all credentials were right: the worker holds back answers to anybody else."""

WAITED = "receiver.waited"
"""Set by the worker: seconds that the request has waited while others were served, as far as this process knows."""

LEAVE_LINE = "receiver.leave_line"
"""Set by the worker: a function that gives the request's place to the next, for one that may have to wait for long."""
