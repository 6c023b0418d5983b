"""The module as a whole, and its tokens."""

import ctypes
import json
import os
from ctypes import byref, c_ulong

from . import _backup, _ffi
from ._session import Session


class Module:
    """The library, initialised for this process until :meth:`close` or the end of the ``with`` block.

    ``path`` is the shared library; without it, ``STRONGROOM_LIBRARY`` or the system's loader tells.
    ``config`` is the configuration file; without it, the library looks in its usual places.
    """

    def __init__(self, path=None, config=None):
        self._library = _ffi.Library(path)
        arguments = _ffi.InitializeArgs(flags=_ffi.CKF_OS_LOCKING_OK)
        if config is not None:
            arguments.config_path = os.fsencode(config)
        self._library.C_Initialize(byref(arguments))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the use of the library in this process; a second call does nothing."""
        library, self._library = self._library, None
        if library is not None:
            library.C_Finalize(None)

    def status(self):
        """Tells the state of the library as a ``dict``."""
        return json.loads(self._library.text("SR_GetStatus") or "{}")

    def version(self):
        """Tells the version of the library."""
        return self._library.text("SR_GetVersion")

    def tokens(self):
        """Lists the initialised tokens."""
        return [token for token in self._slots() if token.flags & _ffi.CKF_TOKEN_INITIALIZED]

    def token(self, label=None, serial=None):
        """Finds the one token of a label or serial number; :class:`LookupError` when none or several fit."""
        tokens = self.tokens()
        fitting = [t for t in tokens if label in (None, t.label) and serial in (None, t.serial)]
        if len(fitting) == 1:
            return fitting[0]
        found = "more than one token fits" if fitting else "no token fits"
        known = ", ".join(f"{t.label!r} (serial {t.serial})" for t in fitting or tokens) or "none"
        raise LookupError(f"{found}; there is: {known}")

    def init_token(self, label, so_pin, pin):
        """Makes a token in the free slot, with an SO PIN and a user PIN, and gives it."""
        label = label.rstrip(" ")  # PKCS #11 fills it up with blanks
        padded = label.encode().ljust(32)
        if not 0 < len(label.encode()) <= 32:
            raise ValueError("a token's label has 1 to 32 bytes")
        slot = next(token.slot for token in self._slots() if not token.flags & _ffi.CKF_TOKEN_INITIALIZED)
        known = {token.serial for token in self.tokens()}
        with _ffi.Pin(so_pin) as secret:
            self._library.C_InitToken(slot, secret.buffer, secret.length, padded)
        token = next(t for t in self.tokens() if t.label == label and t.serial not in known)
        with token.open() as session:
            session.login(so_pin, security_officer=True)
            session.init_pin(pin)
        return token

    def verify_backup(self, path, **secrets):
        """Proves that a backup would restore, and tells what it holds, as a ``dict``.

        ``secrets`` open it: ``pin`` of its token at that time, ``password`` of a recovery envelope, or ``share_files``, a list of paths.
        """
        return _backup.verify(self._library, 0, path, secrets)

    def import_backup(self, path, replace=False, remove=False, dry_run=False, **secrets):
        """Restores a whole token from a backup, and tells what became of it, as a ``dict``.

        ``secrets`` are those of :meth:`verify_backup`, and ``new_so_pin`` and ``new_pin`` after a recovery. Without ``replace`` and
        ``remove`` nothing that is there is touched.
        """
        return _backup.restore(self._library, 0, path, None, None, replace, remove, dry_run, secrets)

    def _slots(self):
        """Lists every slot's token, also the one that is not initialised yet."""
        count = c_ulong()
        self._library.C_GetSlotList(1, None, byref(count))
        slots = (c_ulong * count.value)()
        self._library.C_GetSlotList(1, slots, byref(count))
        return [Token(self._library, slot) for slot in slots[: count.value]]


class Token:
    """A token: its ``label``, ``serial`` number, ``slot`` and ``flags`` (CKF_...)."""

    def __init__(self, library, slot):
        info = _ffi.TokenInfo()
        library.C_GetTokenInfo(slot, byref(info))
        self._library = library
        self.slot = slot
        self.label = _text(info, "label")
        self.serial = _text(info, "serial")
        self.flags = info.flags

    def open(self, pin=None):
        """Opens a session, logged in as the user when a PIN is given; a read-write one, unless the store can only be read."""
        session = Session(self._library, self)
        if pin is not None:
            try:
                session.login(pin)
            except _ffi.Error:
                session.close()
                raise
        return session

    def __repr__(self):
        return f"<strongroom.Token {self.label!r} serial {self.serial}>"


def _text(info, field):
    """Reads a text that is padded with blanks."""
    place = getattr(_ffi.TokenInfo, field)
    data = ctypes.string_at(ctypes.addressof(info) + place.offset, place.size)
    return data.rstrip(b" \0").decode("utf-8", "replace")
