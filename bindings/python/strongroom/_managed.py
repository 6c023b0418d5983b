"""Managed keys: named by owner and asset, with versions and rules for their rotation."""

import ctypes
import json
from ctypes import byref, c_ulong

from . import _ffi
from ._keys import Key

#: The states of a version.
STATES = {"active": 1, "rotated": 2, "disabled": 3}


class UnlockedKey:
    """A key that is unlocked: until :meth:`lock`, the end of the ``with`` block, or the end of its time."""

    def __init__(self, managed, handle, version):
        self._managed = managed
        self._version = version
        self.handle = handle

    def key(self):
        """Gives the unlocked version as a :class:`Key` that signs."""
        return self._managed.key(self._version)

    def lock(self):
        """Locks the key; a second call does nothing."""
        handle, self.handle = self.handle, None
        if handle is not None and self._managed._session.handle is not None:
            self._managed._library.SR_LockKey(self._managed._session.handle, handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lock()


class ManagedKey:
    """A managed key of a session's token, such as ``session.managed_key("alice", "btc")``."""

    def __init__(self, session, owner, asset):
        self._session = session
        self._library = session._library
        self.owner = owner
        self.asset = asset

    @classmethod
    def create(cls, session, owner, asset, password=None):
        """Makes a managed key. With a password, each use of it asks for that: see :meth:`unlock`."""
        made, handle = cls(session, owner, asset), c_ulong()
        with _ffi.Pin(password) as secret:
            session._library.SR_GenerateKey(
                session.handle, *made._name(), secret.buffer, secret.length, byref(handle), None, None, None, None
            )
        return made

    def _name(self):
        owner, asset = self.owner.encode(), self.asset.encode()
        return owner, len(owner), asset, len(asset)

    def _tell(self, function):
        return json.loads(self._library.text(function, self._session.handle, *self._name()))

    def info(self):
        """Describes the key and its latest version as a ``dict``."""
        return self._tell("SR_GetKeyInfo")

    def versions(self):
        """Describes every version, the oldest first."""
        return self._tell("SR_ListVersions")

    def policy(self):
        """Tells the rules of its rotation, and under ``set_by`` where each comes from."""
        return self._tell("SR_GetRotationPolicy")

    def address(self, version=0, form=""):
        """Gives the address of a version, or of the active one; ``form`` is p2wpkh, p2pkh, p2sh-p2wpkh, p2pkh-uncompressed, eip55 or base58."""
        form = form.encode()
        return self._library.text("SR_GetAddress", self._session.handle, *self._name(), version, form, len(form))

    def handle(self, version=0):
        """Finds the handle of the private or secret key of a version, or of the active one."""
        handle = c_ulong()
        self._library.SR_FindKey(self._session.handle, *self._name(), version, byref(handle))
        return handle.value

    def key(self, version=0):
        """Gives a version, or the active one, as a :class:`Key` that signs and verifies."""
        private = self.handle(version)
        number = self._number(private)
        wanted = {
            _ffi.CKA_CLASS: _ffi.CKO_PUBLIC_KEY,
            _ffi.CKA_SR_OWNER: self.owner,
            _ffi.CKA_SR_ASSET: self.asset,
            _ffi.CKA_SR_VERSION: number,
        }
        public = self._session.find(wanted)
        return Key(self._session, private=private, public=public[0] if public else None)

    def sign_recoverable(self, digest, version=0):
        """Signs a digest of 32 bytes and gives 65: r, s (the lower one) and the recovery number."""
        room, length = ctypes.create_string_buffer(65), c_ulong(65)
        self._library.SR_SignRecoverable(
            self._session.handle, self.handle(version), bytes(digest), len(digest), room, byref(length)
        )
        return room.raw[: length.value]

    def encrypt(self, data):
        """Encrypts under the active version of an AES key; the result names key and version."""
        handle = self.handle()
        self._library.C_EncryptInit(self._session.handle, byref(_ffi.Mechanism(_ffi.CKM_SR_SEALED)), handle)
        return self._single(self._library.C_Encrypt, data)

    def decrypt(self, data):
        """Decrypts what any version of the key made by :meth:`encrypt`."""
        handle = self.handle()
        self._library.C_DecryptInit(self._session.handle, byref(_ffi.Mechanism(_ffi.CKM_SR_SEALED)), handle)
        return self._single(self._library.C_Decrypt, data)

    def _single(self, function, data):
        room, length = ctypes.create_string_buffer(len(data) + 64), c_ulong(len(data) + 64)
        function(self._session.handle, bytes(data), len(data), room, byref(length))
        return room.raw[: length.value]

    def rotate(self, expected=0, old_password=None, new_password=None):
        """Makes a new version and tells its number. ``expected`` is the version to replace; another one is an error.

        A key with a password needs it as ``old_password``; without a new one, the new version is under the same.
        """
        handle = c_ulong()
        with _ffi.Pin(old_password) as old, _ffi.Pin(new_password) as new:
            self._library.SR_RotateKey(
                self._session.handle, *self._name(), old.buffer, old.length, new.buffer, new.length, expected, byref(handle)
            )
        return self._number(handle.value)

    def _number(self, handle):
        return int.from_bytes(self._session.read(handle, _ffi.CKA_SR_VERSION), "little")

    def unlock(self, password, version=0, seconds=0):
        """Unlocks a version, or the active one, for this session: ``with key.unlock(password) as unlocked: unlocked.key().sign(...)``.

        It stays so until it is locked, the session ends or logs out, or for so many seconds if they are given.
        """
        handle = c_ulong()
        with _ffi.Pin(password) as secret:
            self._library.SR_UnlockKey(
                self._session.handle, *self._name(), version, secret.buffer, secret.length, seconds, byref(handle)
            )
        return UnlockedKey(self, handle.value, self._number(handle.value))

    def change_password(self, old, new):
        """Gives the key another password: every version that the old one opens, all of them or none."""
        with _ffi.Pin(old) as before, _ffi.Pin(new) as after:
            self._library.SR_ChangeKeyPassword(
                self._session.handle, *self._name(), before.buffer, before.length, after.buffer, after.length
            )

    def reset_tries(self):
        """Lets the key be tried again that is locked after wrong passwords; for the security officer."""
        self._library.SR_ResetKeyTries(self._session.handle, *self._name())

    def set_state(self, version, state):
        """Makes a version ``active``, ``rotated`` or ``disabled``."""
        if state not in STATES:
            raise ValueError(f"unknown state {state!r}; known: {', '.join(STATES)}")
        self._library.SR_SetVersionState(self._session.handle, *self._name(), version, STATES[state])

    def destroy_version(self, version, confirmation):
        """Destroys a version for good; the confirmation is its ``unique_id`` from :meth:`versions`."""
        confirmation = confirmation.encode()
        self._library.SR_DestroyVersion(
            self._session.handle, *self._name(), version, confirmation, len(confirmation)
        )

    def set_policy(self, rotation_interval_days, max_key_age_days, auto_rotate, max_key_uses=0):
        """Gives the key rules of its own; 0 days and 0 uses is never."""
        limits = (rotation_interval_days, max_key_age_days, max_key_uses)
        self._library.SR_SetRotationPolicy(self._session.handle, *self._name(), *limits, bool(auto_rotate))

    def __repr__(self):
        return f"<strongroom.ManagedKey {self.asset} of {self.owner!r}>"
