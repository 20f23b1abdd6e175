"""How a call ended: the words of the column `status`.

Everything but `ok` is a failure, stays a row, and counts in every denominator. A source that only
knows of a failure says `error`; an answer of another HTTP status than 200 is `http_503` and so on.
This module imports nothing, so that a worker process can use it.
"""

from typing import Final

OK: Final = "ok"
FAILED: Final = "error"
UNKNOWN: Final = "unknown"

REFUSED: Final = "refused"  # nobody listens there
DNS: Final = "dns"  # the name has no address
TLS: Final = "tls"  # the certificate or the handshake failed
RESET: Final = "reset"  # the connection broke off; first_byte_s is null if before any byte
CONNECTION: Final = "connection"  # any other fault of the connection

TIMEOUT: Final = "timeout"  # no end within the call's time
STALLED: Final = "stalled"  # no byte for the idle time
TRUNCATED: Final = "truncated"  # the stream ended without saying so
MALFORMED: Final = "malformed"  # the stream held what is no JSON
UNSTREAMED: Final = "unstreamed"  # status 200 with no stream in it
MISCOUNTED: Final = "miscounted"  # the server's token counts contradict its own stream
SERVER: Final = "server"  # an error inside a stream of status 200

CANCELLED: Final = "cancelled"  # stopped by the user while in flight
LOST: Final = "lost"  # in flight when the client itself died
NOT_SENT: Final = "not_sent"  # what it waits for failed, or the run stopped before it was due
