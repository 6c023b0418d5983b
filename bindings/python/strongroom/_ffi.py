"""The C side: types and numbers of PKCS #11 v3.2, loading the library, and errors."""

import ctypes
import ctypes.util
import os
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_ubyte, c_ulong, c_void_p

CKF_RW_SESSION = 0x2
CKF_WRITE_PROTECTED = 0x2
CKF_SERIAL_SESSION = 0x4
CKF_OS_LOCKING_OK = 0x2
CKF_USER_PIN_INITIALIZED = 0x8
CKF_TOKEN_INITIALIZED = 0x400
CKU_SO = 0
CKU_USER = 1
CKU_CONTEXT_SPECIFIC = 2

CKO_PUBLIC_KEY = 2
CKO_PRIVATE_KEY = 3
CKO_SECRET_KEY = 4
CKK_RSA = 0x00
CKK_EC = 0x03
CKK_AES = 0x1F
CKK_EC_EDWARDS = 0x40
CKK_EC_MONTGOMERY = 0x41

CKA_CLASS = 0x000
CKA_TOKEN = 0x001
CKA_PRIVATE = 0x002
CKA_LABEL = 0x003
CKA_UNIQUE_ID = 0x004
CKA_VALUE = 0x011
CKA_KEY_TYPE = 0x100
CKA_ID = 0x102
CKA_SENSITIVE = 0x103
CKA_SIGN = 0x108
CKA_VERIFY = 0x10A
CKA_DERIVE = 0x10C
CKA_MODULUS_BITS = 0x121
CKA_PUBLIC_EXPONENT = 0x122
CKA_PUBLIC_KEY_INFO = 0x129
CKA_EXTRACTABLE = 0x162
CKA_EC_PARAMS = 0x180
CKA_SR_OWNER = 0xD3520001
CKA_SR_ASSET = 0xD3520002
CKA_SR_VERSION = 0xD3520003

CKM_RSA_PKCS_KEY_PAIR_GEN = 0x0000
CKM_SHA256_RSA_PKCS = 0x0040
CKM_EC_KEY_PAIR_GEN = 0x1040
CKM_ECDSA_SHA256 = 0x1044
CKM_ECDSA_SHA384 = 0x1045
CKM_ECDSA_SHA512 = 0x1046
CKM_EC_EDWARDS_KEY_PAIR_GEN = 0x1055
CKM_EC_MONTGOMERY_KEY_PAIR_GEN = 0x1056
CKM_EDDSA = 0x1057

CKM_SR_SEALED = 0xD3520001

SR_LEGACY_STRICT = 0x1
SR_LEGACY_DRY_RUN = 0x2
SR_BACKUP_OVERWRITE = 0x10
SR_BACKUP_REPLACE = 0x20
SR_BACKUP_REMOVE = 0x40
SR_BACKUP_DRY_RUN = 0x80

CKR_OK = 0x000
CKR_ATTRIBUTE_SENSITIVE = 0x011
CKR_ATTRIBUTE_TYPE_INVALID = 0x012
CKR_PIN_INCORRECT = 0x0A0
CKR_PIN_LOCKED = 0x0A4
CKR_SIGNATURE_INVALID = 0x0C0
CKR_SIGNATURE_LEN_RANGE = 0x0C1


class Version(Structure):
    _fields_ = [("major", c_ubyte), ("minor", c_ubyte)]


class InitializeArgs(Structure):
    _fields_ = [
        ("create_mutex", c_void_p),
        ("destroy_mutex", c_void_p),
        ("lock_mutex", c_void_p),
        ("unlock_mutex", c_void_p),
        ("flags", c_ulong),
        ("config_path", c_char_p),
    ]


class TokenInfo(Structure):
    _fields_ = [
        ("label", c_char * 32),
        ("manufacturer", c_char * 32),
        ("model", c_char * 16),
        ("serial", c_char * 16),
        ("flags", c_ulong),
        ("limits", c_ulong * 10),
        ("hardware_version", Version),
        ("firmware_version", Version),
        ("utc_time", c_char * 16),
    ]


class Attribute(Structure):
    _fields_ = [("type", c_ulong), ("value", c_void_p), ("length", c_ulong)]


class Mechanism(Structure):
    _fields_ = [("mechanism", c_ulong), ("parameter", c_void_p), ("parameter_len", c_ulong)]


_HANDLE = c_ulong
_BYTES = c_void_p
_LENGTH = POINTER(c_ulong)
_TEMPLATE = POINTER(Attribute)

#: The functions that this package calls, with their arguments. ``OPTIONAL`` ones are Strongroom's own.
FUNCTIONS = {
    "C_Initialize": [POINTER(InitializeArgs)],
    "C_Finalize": [c_void_p],
    "C_GetSlotList": [c_ubyte, POINTER(c_ulong), _LENGTH],
    "C_GetTokenInfo": [c_ulong, POINTER(TokenInfo)],
    "C_InitToken": [c_ulong, _BYTES, c_ulong, c_char_p],
    "C_InitPIN": [_HANDLE, _BYTES, c_ulong],
    "C_OpenSession": [c_ulong, c_ulong, c_void_p, c_void_p, POINTER(_HANDLE)],
    "C_CloseSession": [_HANDLE],
    "C_Login": [_HANDLE, c_ulong, _BYTES, c_ulong],
    "C_Logout": [_HANDLE],
    "C_CreateObject": [_HANDLE, _TEMPLATE, c_ulong, POINTER(_HANDLE)],
    "C_DestroyObject": [_HANDLE, _HANDLE],
    "C_GetAttributeValue": [_HANDLE, _HANDLE, _TEMPLATE, c_ulong],
    "C_FindObjectsInit": [_HANDLE, _TEMPLATE, c_ulong],
    "C_FindObjects": [_HANDLE, POINTER(_HANDLE), c_ulong, _LENGTH],
    "C_FindObjectsFinal": [_HANDLE],
    "C_GenerateKeyPair": [
        _HANDLE, POINTER(Mechanism), _TEMPLATE, c_ulong, _TEMPLATE, c_ulong, POINTER(_HANDLE), POINTER(_HANDLE),
    ],
    "C_EncryptInit": [_HANDLE, POINTER(Mechanism), _HANDLE],
    "C_Encrypt": [_HANDLE, _BYTES, c_ulong, _BYTES, _LENGTH],
    "C_DecryptInit": [_HANDLE, POINTER(Mechanism), _HANDLE],
    "C_Decrypt": [_HANDLE, _BYTES, c_ulong, _BYTES, _LENGTH],
    "C_SignInit": [_HANDLE, POINTER(Mechanism), _HANDLE],
    "C_Sign": [_HANDLE, _BYTES, c_ulong, _BYTES, _LENGTH],
    "C_VerifyInit": [_HANDLE, POINTER(Mechanism), _HANDLE],
    "C_Verify": [_HANDLE, _BYTES, c_ulong, _BYTES, c_ulong],
}  # fmt: skip
_NAME = [_HANDLE, _BYTES, c_ulong, _BYTES, c_ulong]
OPTIONAL = {
    "SR_GetVersion": [_BYTES, _LENGTH],
    "SR_LastError": [_BYTES, _LENGTH],
    "SR_GetStatus": [_BYTES, _LENGTH],
    "SR_GenerateKey": [*_NAME, _BYTES, c_ulong, POINTER(_HANDLE), _BYTES, _LENGTH, _BYTES, _LENGTH],
    "SR_FindKey": [*_NAME, c_ulong, POINTER(_HANDLE)],
    "SR_GetKeyInfo": [*_NAME, _BYTES, _LENGTH],
    "SR_ListVersions": [*_NAME, _BYTES, _LENGTH],
    "SR_SetVersionState": [*_NAME, c_ulong, c_ulong],
    "SR_DestroyVersion": [*_NAME, c_ulong, _BYTES, c_ulong],
    "SR_GetAddress": [*_NAME, c_ulong, _BYTES, c_ulong, _BYTES, _LENGTH],
    "SR_SignRecoverable": [_HANDLE, _HANDLE, _BYTES, c_ulong, _BYTES, _LENGTH],
    "SR_RotateKey": [*_NAME, _BYTES, c_ulong, _BYTES, c_ulong, c_ulong, POINTER(_HANDLE)],
    "SR_RotateDue": [_HANDLE, c_ulong, _LENGTH, _LENGTH, _LENGTH],
    "SR_GetRotationPolicy": [*_NAME, _BYTES, _LENGTH],
    "SR_SetRotationPolicy": [*_NAME, c_ulong, c_ulong, c_ulong, c_ubyte],
    "SR_RotateMasterKey": [_HANDLE],
    "SR_MoveKms": [_HANDLE, _BYTES, c_ulong],
    "SR_ImportLegacyHex": [_HANDLE, _BYTES, c_ulong, _BYTES, c_ulong, c_ulong, _LENGTH, _LENGTH, _LENGTH],
    "SR_UnlockKey": [*_NAME, c_ulong, _BYTES, c_ulong, c_ulong, POINTER(_HANDLE)],
    "SR_LockKey": [_HANDLE, _HANDLE],
    "SR_ChangeKeyPassword": [*_NAME, _BYTES, c_ulong, _BYTES, c_ulong],
    "SR_ResetKeyTries": _NAME,
    "SR_AuditVerify": [_HANDLE, _BYTES, _LENGTH],
    "SR_AuditExport": [_HANDLE, c_ulong, _BYTES, _LENGTH, _LENGTH],
}

#: What tells of the library itself: when it fails there is no more to ask.
TEXTS = {"SR_GetVersion", "SR_LastError", "SR_GetStatus"}


#: The largest number that a call takes.
_LARGEST = 2 ** (8 * ctypes.sizeof(c_ulong)) - 1


class Error(Exception):
    """The library said no: ``code`` is the return value (CKR_...), ``function`` the call, the text says why."""

    def __init__(self, function, code, text):
        super().__init__(text or f"{function} answered 0x{code:X}")
        self.function = function
        self.code = code


class Library:
    """The loaded library; each function checks its return value and raises :class:`Error`."""

    def __init__(self, path=None):
        self.path = os.fspath(path) if path else _find()
        self._dll = ctypes.CDLL(self.path)
        for name, arguments in {**FUNCTIONS, **OPTIONAL}.items():
            function = getattr(self._dll, name, None)
            if function is None and name in OPTIONAL:
                continue
            if function is None:
                raise OSError(f"{self.path} is not a PKCS #11 module: it has no {name}")
            function.argtypes, function.restype = arguments, c_ulong
            setattr(self, name, self._checked(name, function))

    def _checked(self, name, function):
        def call(*arguments):
            for argument in arguments:
                _check_number(argument)
            code = function(*arguments)
            if code != CKR_OK:
                raise Error(name, code, "" if name in TEXTS else self._last_error())

        return call

    def _last_error(self):
        try:
            return self.text("SR_LastError")
        except Error:
            return ""

    def text(self, name, *arguments):
        """Calls a function that gives a text; empty when the library has no such function."""
        function = getattr(self, name, None)
        if function is None:
            return ""
        length = c_ulong()
        function(*arguments, None, byref(length))
        room = ctypes.create_string_buffer(length.value + 1)
        function(*arguments, room, byref(length))
        return room.raw[: length.value].decode("utf-8", "replace")


def _check_number(value):
    """Refuses what ctypes would cut to a number that nobody asked for: -1 seconds would be for ever."""
    if isinstance(value, int) and not 0 <= value <= _LARGEST:
        raise OverflowError(f"{value} is no number from 0 to {_LARGEST}")


def _find():
    """Finds the library: STRONGROOM_LIBRARY, else what the system's loader finds."""
    return os.environ.get("STRONGROOM_LIBRARY") or ctypes.util.find_library("strongroom") or "libstrongroom.so"


class Pin:
    """A PIN or password as C bytes, wiped at the end of the ``with`` block; ``None`` is NULL."""

    def __init__(self, pin):
        if pin is None:
            self.buffer, self.length = None, 0
            return
        data = memoryview(pin.encode() if isinstance(pin, str) else pin).cast("B")
        self.length = data.nbytes
        self.buffer = ctypes.create_string_buffer(max(self.length, 1))
        # What the caller can wipe is copied nowhere but to here: a `bytes` of it would stay in memory.
        source = bytes(data) if data.readonly else (c_char * self.length).from_buffer(data)
        ctypes.memmove(self.buffer, source, self.length)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.buffer is not None:
            ctypes.memset(self.buffer, 0, len(self.buffer))


def template(values):
    """Makes a C template from ``{CKA_...: bool | int | bytes | str}``; it keeps its own values alive."""
    attributes = (Attribute * len(values))()
    attributes.kept = []
    for attribute, (kind, value) in zip(attributes, values.items()):
        data = _encode(value)
        room = ctypes.create_string_buffer(data, max(len(data), 1))
        attributes.kept.append(room)
        attribute.type, attribute.length = kind, len(data)
        attribute.value = ctypes.cast(room, c_void_p)
    return attributes


def _encode(value):
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, int):
        _check_number(value)
        return bytes(c_ulong(value))
    return value.encode() if isinstance(value, str) else bytes(value)
