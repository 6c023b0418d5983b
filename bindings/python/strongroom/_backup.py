"""Backups of tokens and keys, and the recovery envelopes that open them when a KMS or a PIN is lost."""

import ctypes
import json
import os
from contextlib import ExitStack
from ctypes import POINTER, Structure, byref, c_ulong, c_void_p

from . import _ffi


class Secrets(Structure):
    """What opens a backup, as C has it."""

    _fields_ = [
        (name, kind)
        for field in ("pin", "recovery_password", "share_files", "new_so_pin", "new_pin")
        for name, kind in ((field, c_void_p), (f"{field}_len", c_ulong))
    ]


_SCOPE = [c_void_p, c_ulong, c_void_p, c_ulong]
_ffi.OPTIONAL |= {
    "SR_ExportBackup": [c_ulong, *_SCOPE, c_void_p, c_ulong, c_ulong, c_void_p, POINTER(c_ulong)],
    "SR_VerifyBackup": [c_ulong, c_void_p, c_ulong, POINTER(Secrets), c_void_p, POINTER(c_ulong)],
    "SR_ImportBackup": [
        c_ulong, *_SCOPE, c_void_p, c_ulong, POINTER(Secrets), c_ulong, c_void_p, POINTER(c_ulong),
    ],
    "SR_AddRecoveryPassword": [c_ulong, c_void_p, c_ulong, c_void_p, c_ulong],
    "SR_AddRecoveryKms": [c_ulong, c_void_p, c_ulong, c_void_p, c_ulong],
    "SR_AddRecoveryShares": [c_ulong, c_void_p, c_ulong, c_ulong, c_ulong, c_void_p, c_ulong],
    "SR_RemoveRecovery": [c_ulong, c_void_p, c_ulong],
    "SR_ListRecovery": [c_ulong, c_void_p, POINTER(c_ulong)],
}  # fmt: skip


def _text(value):
    value = os.fsencode(value)
    return value, len(value)


def _scope(owner, asset):
    return (*_text(owner or ""), *_text(asset or ""))


def export(session, path, owner=None, asset=None, overwrite=False):
    flags = _ffi.SR_BACKUP_OVERWRITE if overwrite else 0
    told = session._library.text("SR_ExportBackup", session.handle, *_scope(owner, asset), *_text(path), flags)
    return json.loads(told)


def verify(library, session, path, secrets):
    with ExitStack() as stack:
        given = _given(stack, **secrets)
        return json.loads(library.text("SR_VerifyBackup", session, *_text(path), given))


def restore(library, session, path, owner, asset, replace, remove, dry_run, secrets):
    wanted = {_ffi.SR_BACKUP_REPLACE: replace, _ffi.SR_BACKUP_REMOVE: remove, _ffi.SR_BACKUP_DRY_RUN: dry_run}
    flags = sum(flag for flag, is_wanted in wanted.items() if is_wanted)
    with ExitStack() as stack:
        given = _given(stack, **secrets)
        told = library.text("SR_ImportBackup", session, *_scope(owner, asset), *_text(path), given, flags)
    return json.loads(told)


def _given(stack, pin=None, password=None, share_files=(), new_so_pin=None, new_pin=None):
    """Fills in the structure; what is secret is wiped at the end of the block."""
    given = Secrets()
    files = b"\n".join(os.fsencode(path) for path in share_files) or None
    fields = {"pin": pin, "recovery_password": password, "share_files": files, "new_so_pin": new_so_pin, "new_pin": new_pin}
    for name, value in fields.items():
        if value is not None:
            secret = stack.enter_context(_ffi.Pin(value))
            setattr(given, name, ctypes.cast(secret.buffer, c_void_p))
            setattr(given, f"{name}_len", secret.length)
    return byref(given)


class Recovery:
    """The recovery envelopes of a session's token; the SO adds and removes them."""

    def __init__(self, session):
        self._session = session

    def list(self):
        """Describes each envelope: name, means, and what it needs."""
        return json.loads(self._session._library.text("SR_ListRecovery", self._session.handle))

    def add_password(self, name, password):
        """Adds one that a password of 16 bytes or more opens."""
        with _ffi.Pin(password) as secret:
            self._call("SR_AddRecoveryPassword", name, secret.buffer, secret.length)

    def add_kms(self, name, provider):
        """Adds one that another KMS of the configuration opens, by its name there."""
        self._call("SR_AddRecoveryKms", name, *_text(provider))

    def add_shares(self, name, needed, count, folder):
        """Adds one that ``needed`` of ``count`` shares open, and writes each share into a file in the folder."""
        self._call("SR_AddRecoveryShares", name, needed, count, *_text(folder))

    def remove(self, name):
        """Removes one; backups that have it already keep it."""
        self._call("SR_RemoveRecovery", name)

    def _call(self, function, name, *arguments):
        getattr(self._session._library, function)(self._session.handle, *_text(name), *arguments)


def inspect(path):
    """Tells what a backup says of itself: which token, and which KMS key opens it. Nobody vouches for it; it needs no secret."""
    with open(path, "rb") as document:
        first, head = document.readline(), document.readline()
    if first != b'{"strongroom_backup":1,\n' or not head.startswith(b'"head":'):
        raise ValueError(f"{os.fspath(path)} is no backup of Strongroom, or of a newer format")
    head = json.loads(head.removeprefix(b'"head":').rstrip().removesuffix(b","))
    for field in ("so_envelope", "user_envelope"):
        del head["token"][field]
    for envelope in head["recovery"]:
        del envelope["envelope"]
    return head
