"""Sessions: logging in, making keys, finding them."""

import os
from ctypes import byref, c_ulong

from . import _audit, _backup, _ffi, _managed
from ._keys import KEY_TYPES, Key

#: How many objects a search asks for at a time.
_BATCH = 256


class Session:
    """A session with a token; it ends with :meth:`close` or the ``with`` block."""

    def __init__(self, library, token):
        handle = c_ulong()
        changes = 0 if token.flags & _ffi.CKF_WRITE_PROTECTED else _ffi.CKF_RW_SESSION
        library.C_OpenSession(token.slot, _ffi.CKF_SERIAL_SESSION | changes, None, None, byref(handle))
        self._library = library
        self.handle = handle.value

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the session; a second call does nothing."""
        handle, self.handle = self.handle, None
        if handle is not None:
            self._library.C_CloseSession(handle)

    def login(self, pin, security_officer=False):
        """Logs in as the user, or as the security officer."""
        user = _ffi.CKU_SO if security_officer else _ffi.CKU_USER
        with _ffi.Pin(pin) as secret:
            self._library.C_Login(self.handle, user, secret.buffer, secret.length)

    def logout(self):
        """Logs out; private keys cannot be used until the next login."""
        self._library.C_Logout(self.handle)

    def init_pin(self, pin):
        """Sets the user PIN; for the security officer."""
        with _ffi.Pin(pin) as secret:
            self._library.C_InitPIN(self.handle, secret.buffer, secret.length)

    def generate_key_pair(self, key_type, label, id=None, temporary=False):
        """Makes a key pair (``secp256k1``, ``ed25519``, ``p256``, ``rsa2048``, ...) whose private half never leaves the token.

        A ``temporary`` pair is gone at the end of the session.
        """
        kind = KEY_TYPES.get(key_type)
        if kind is None:
            raise ValueError(f"unknown key type {key_type!r}; known: {', '.join(KEY_TYPES)}")
        common = {_ffi.CKA_TOKEN: not temporary, _ffi.CKA_LABEL: label}
        if id is not None:
            common[_ffi.CKA_ID] = id
        public = _ffi.template({**common, _ffi.CKA_PRIVATE: False, **kind.public})
        private = _ffi.template({**common, **kind.private})
        handles = c_ulong(), c_ulong()
        self._library.C_GenerateKeyPair(
            self.handle, byref(_ffi.Mechanism(kind.generate)), public, len(public), private, len(private), *map(byref, handles)
        )
        return Key(self, private=handles[1].value, public=handles[0].value)

    def generate_managed_key(self, owner, asset, password=None):
        """Makes a managed key of an owner: ``btc``, ``eth``, ``sol``, ``p256``, ``ed25519``, ``aes256``, ..., with a password or none."""
        return _managed.ManagedKey.create(self, owner, asset, password)

    def managed_key(self, owner, asset):
        """Names the managed key of an owner and an asset; whether there is one shows when it is used."""
        return _managed.ManagedKey(self, owner, asset)

    def rotate_due(self, at_most=0):
        """Rotates the managed keys that are due: tells how many were rotated, are due still, and failed."""
        rotated, left, failed = c_ulong(), c_ulong(), c_ulong()
        self._library.SR_RotateDue(self.handle, at_most, byref(rotated), byref(left), byref(failed))
        return rotated.value, left.value, failed.value

    def rotate_master_key(self):
        """Rotates the token's master key in its KMS; what was sealed before still opens."""
        self._library.SR_RotateMasterKey(self.handle)

    def move_kms(self, provider):
        """Moves the token to another KMS of the configuration, by its name there."""
        name = provider.encode()
        self._library.SR_MoveKms(self.handle, name, len(name))

    def import_legacy_hex(self, source, report=None, strict=False, dry_run=False):
        """Moves the legacy system's records in, from a file: tells how many were imported, were present, and failed.

        ``report`` is the path of a new file, which gets a line of JSON for each record. ``strict`` moves all or none.
        """
        source, report = os.fsencode(source), os.fsencode(report or "")
        flags = (_ffi.SR_LEGACY_STRICT if strict else 0) | (_ffi.SR_LEGACY_DRY_RUN if dry_run else 0)
        counts = c_ulong(), c_ulong(), c_ulong()
        self._library.SR_ImportLegacyHex(
            self.handle, source, len(source), report, len(report), flags, *map(byref, counts)
        )
        return tuple(count.value for count in counts)

    def verify_audit(self):
        """Verifies the audit trail of the token: a ``dict`` with ``ok`` and each fault. Signatures need a login."""
        return _audit.verify(self)

    def audit(self, after=0):
        """Gives the records of the audit trail after a number, each as a ``dict``."""
        return _audit.records(self, after)

    @property
    def recovery(self):
        """The token's recovery envelopes, which open its backups when the KMS or the PINs are lost."""
        return _backup.Recovery(self)

    def export_backup(self, path, owner=None, asset=None, overwrite=False):
        """Writes a backup of the token, of an owner's managed keys, or of one of them; tells what was written, as a ``dict``."""
        return _backup.export(self, path, owner, asset, overwrite)

    def verify_backup(self, path, **secrets):
        """Proves that a backup would restore; one of this token needs no secrets."""
        return _backup.verify(self._library, self.handle, path, secrets)

    def import_backup(self, path, owner=None, asset=None, replace=False, remove=False, dry_run=False, **secrets):
        """Restores keys of a backup into this token; owner and asset take them out of a larger backup."""
        return _backup.restore(self._library, self.handle, path, owner, asset, replace, remove, dry_run, secrets)

    def create_object(self, attributes):
        """Makes an object from ``{CKA_...: value}`` and gives its handle. The token's policy decides what may come in."""
        template, handle = _ffi.template(attributes), c_ulong()
        self._library.C_CreateObject(self.handle, template, len(template), byref(handle))
        return handle.value

    def keys(self, label=None, id=None):
        """Lists the private keys that have the label and the id, each with its public half."""
        wanted = {_ffi.CKA_LABEL: label, _ffi.CKA_ID: id}
        wanted = {kind: value for kind, value in wanted.items() if value is not None}
        return [self._pair(handle) for handle in self.find({_ffi.CKA_CLASS: _ffi.CKO_PRIVATE_KEY, **wanted})]

    def key(self, label=None, id=None):
        """Finds the one private key of a label or id; :class:`LookupError` when none or several fit."""
        keys = self.keys(label, id)
        if len(keys) == 1:
            return keys[0]
        ids = ", ".join(key.id.hex() for key in keys)
        raise LookupError(f"more than one key fits; their ids: {ids}" if keys else "no key fits")

    def _pair(self, private):
        """Finds the public half of a private key by its id."""
        id = self.attribute(private, _ffi.CKA_ID)
        public = self.find({_ffi.CKA_CLASS: _ffi.CKO_PUBLIC_KEY, _ffi.CKA_ID: id}) if id else []
        return Key(self, private=private, public=public[0] if public else None)

    def find(self, wanted):
        """Finds the handles of all objects with the attributes ``{CKA_...: value}``."""
        template = _ffi.template(wanted)
        self._library.C_FindObjectsInit(self.handle, template, len(template))
        found, batch, count = [], (c_ulong * _BATCH)(), c_ulong(1)
        try:
            while count.value:
                self._library.C_FindObjects(self.handle, batch, _BATCH, byref(count))
                found += batch[: count.value]
        finally:
            self._library.C_FindObjectsFinal(self.handle)
        return found

    def attribute(self, handle, kind):
        """Reads an attribute as bytes; ``None`` when the object has none or does not reveal it."""
        try:
            return self.read(handle, kind)
        except _ffi.Error as error:
            if error.code in (_ffi.CKR_ATTRIBUTE_SENSITIVE, _ffi.CKR_ATTRIBUTE_TYPE_INVALID):
                return None
            raise

    def read(self, handle, kind):
        """Reads an attribute (CKA_...) as bytes."""
        template = _ffi.template({kind: b""})
        template[0].value = None
        self._library.C_GetAttributeValue(self.handle, handle, template, 1)
        template = _ffi.template({kind: bytes(template[0].length)})
        self._library.C_GetAttributeValue(self.handle, handle, template, 1)
        return template.kept[0].raw[: template[0].length]
