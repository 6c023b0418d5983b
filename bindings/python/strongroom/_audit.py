"""The audit trail of a token."""

import ctypes
import json
from ctypes import byref, c_ulong

#: How much is asked for at once, in bytes.
ROOM = 1 << 20


def verify(session):
    """Verifies the trail and gives the report as a ``dict``: ``ok``, and each fault with the number of its record."""
    return json.loads(session._library.text("SR_AuditVerify", session.handle))


def records(session, after=0):
    """Gives the records after a number, each as a ``dict``; reads them piece by piece."""
    room, last = ctypes.create_string_buffer(ROOM), c_ulong()
    while True:
        length = c_ulong(ROOM)
        session._library.SR_AuditExport(session.handle, after, room, byref(length), byref(last))
        if length.value == 0:
            return
        # A line ends with a line feed alone: splitlines() knows more ends, which a name may have.
        for line in room.raw[: length.value].decode().split("\n")[:-1]:
            yield json.loads(line)
        after = last.value
