/*
 * Strongroom's own functions and numbers, beside those of PKCS #11.
 *
 * Include the PKCS #11 header of your choice (OASIS, p11-kit, NSS) before this one, if you use any; it declares the C_*
 * functions, which libstrongroom.so exports too. Alone, this header defines the few PKCS #11 types that it needs.
 *
 * Every function returns a CK_RV. Where a buffer is filled, NULL asks for the length; a buffer that is too small is left
 * as it is, CKR_BUFFER_TOO_SMALL is returned, and the length says what is needed.
 *
 * Made from the sources by cbindgen; changes belong there.
 */

#ifndef STRONGROOM_H
#define STRONGROOM_H

#if !defined(CRYPTOKI_VERSION_MAJOR) || defined(CRYPTOKI_GNU)
typedef unsigned char CK_BYTE;
typedef CK_BYTE CK_UTF8CHAR;
typedef CK_BYTE CK_BBOOL;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_FLAGS;
typedef CK_ULONG CK_RV;
typedef CK_ULONG CK_SLOT_ID;
typedef CK_ULONG CK_SESSION_HANDLE;
typedef CK_ULONG CK_OBJECT_HANDLE;
typedef CK_ULONG CK_ATTRIBUTE_TYPE;
#if defined(CRYPTOKI_GNU)
typedef struct ck_attribute CK_ATTRIBUTE;
#else
typedef struct CK_ATTRIBUTE {
  CK_ATTRIBUTE_TYPE type;
  void *pValue;
  CK_ULONG ulValueLen;
} CK_ATTRIBUTE;
#endif
#endif

/**
 * The `SR_*` functions as a table, from C_GetInterface with the name "Vendor Strongroom". Later versions only add at the end.
 */
typedef struct SR_FUNCTION_LIST {
  /**
   * The major version of the table.
   */
  CK_BYTE version_major;
  /**
   * The minor version of the table.
   */
  CK_BYTE version_minor;
  /**
   * See [`SR_GetVersion`].
   */
  CK_RV (*SR_GetVersion)(CK_UTF8CHAR *version, CK_ULONG *version_len);
  /**
   * See [`SR_LastError`].
   */
  CK_RV (*SR_LastError)(CK_UTF8CHAR *text, CK_ULONG *text_len);
  /**
   * See [`SR_GetStatus`].
   */
  CK_RV (*SR_GetStatus)(CK_UTF8CHAR *json, CK_ULONG *json_len);
  /**
   * See [`SR_WrapKey`].
   */
  CK_RV (*SR_WrapKey)(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_BYTE *wrapped, CK_ULONG *wrapped_len);
  /**
   * See [`SR_UnwrapKey`].
   */
  CK_RV (*SR_UnwrapKey)(CK_SESSION_HANDLE session,
                        const CK_BYTE *wrapped,
                        CK_ULONG wrapped_len,
                        const CK_ATTRIBUTE *attributes,
                        CK_ULONG count,
                        CK_OBJECT_HANDLE *key);
  /**
   * See [`SR_GenerateDataKey`].
   */
  CK_RV (*SR_GenerateDataKey)(CK_SESSION_HANDLE session,
                              const CK_ATTRIBUTE *attributes,
                              CK_ULONG count,
                              CK_BYTE *wrapped,
                              CK_ULONG *wrapped_len,
                              CK_OBJECT_HANDLE *key);
  /**
   * See [`SR_RotateMasterKey`].
   */
  CK_RV (*SR_RotateMasterKey)(CK_SESSION_HANDLE session);
  /**
   * See [`SR_MoveKms`].
   */
  CK_RV (*SR_MoveKms)(CK_SESSION_HANDLE session, const CK_UTF8CHAR *provider, CK_ULONG provider_len);
  /**
   * See [`SR_GetKmsStatus`].
   */
  CK_RV (*SR_GetKmsStatus)(CK_SESSION_HANDLE session, CK_UTF8CHAR *json, CK_ULONG *json_len);
  /**
   * See [`SR_AuditVerify`].
   */
  CK_RV (*SR_AuditVerify)(CK_SESSION_HANDLE session, CK_UTF8CHAR *json, CK_ULONG *json_len);
  /**
   * See [`SR_AuditExport`].
   */
  CK_RV (*SR_AuditExport)(CK_SESSION_HANDLE session,
                          CK_ULONG after,
                          CK_UTF8CHAR *lines,
                          CK_ULONG *lines_len,
                          CK_ULONG *last);
} SR_FUNCTION_LIST;

/**
 * Where our own attributes start: "SR" in the third and fourth byte keeps clear of other vendors' numbers.
 */
#define CKA_SR_BASE 3545366528

/**
 * Where our own mechanisms start.
 */
#define CKM_SR_BASE 3545366528

/**
 * The owner of a managed key (text).
 */
#define CKA_SR_OWNER (CKA_SR_BASE | 1)

/**
 * The asset of a managed key (text).
 */
#define CKA_SR_ASSET (CKA_SR_BASE | 2)

/**
 * The version of a managed key, from 1 (CK_ULONG).
 */
#define CKA_SR_VERSION (CKA_SR_BASE | 3)

/**
 * The state of a version (CK_ULONG).
 */
#define CKA_SR_STATE (CKA_SR_BASE | 4)

/**
 * When the version was made, in seconds since 1970 (CK_ULONG).
 */
#define CKA_SR_CREATED (CKA_SR_BASE | 5)

/**
 * When the version was rotated away, in seconds since 1970 (CK_ULONG).
 */
#define CKA_SR_ROTATED (CKA_SR_BASE | 6)

/**
 * The KMS master key that wraps the version (text).
 */
#define CKA_SR_KMS_KEY_ID (CKA_SR_BASE | 7)

/**
 * When the next rotation is due, in seconds since 1970 (CK_ULONG).
 */
#define CKA_SR_NEXT_ROTATION (CKA_SR_BASE | 8)

/**
 * The provider's name of a key that lives in a KMS (text); an object that has it holds no key material.
 */
#define CKA_SR_REMOTE_KEY_ID (CKA_SR_BASE | 9)

/**
 * The name under which the configuration shows such a key (text).
 */
#define CKA_SR_REMOTE_NAME (CKA_SR_BASE | 10)

/**
 * The type of a KMS master key.
 */
#define CKK_SR_KMS (CKA_SR_BASE | 1)

/**
 * Encrypts to a self-describing ciphertext that names key and version.
 */
#define CKM_SR_SEALED (CKM_SR_BASE | 1)

/**
 * Wraps a key under the KMS master key.
 */
#define CKM_SR_KMS_WRAP (CKM_SR_BASE | 2)

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Tells the version of the library, such as `1.2.3`. Works before C_Initialize.
 */
CK_RV SR_GetVersion(CK_UTF8CHAR *version, CK_ULONG *version_len);

/**
 * Tells in words what the last call of this thread that failed answered, and why; empty when none has. Works at any time.
 * A call that goes well leaves the text alone, and so does this one.
 */
CK_RV SR_LastError(CK_UTF8CHAR *text,
                   CK_ULONG *text_len);

/**
 * Tells the state of the library as a JSON object.
 */
CK_RV SR_GetStatus(CK_UTF8CHAR *json, CK_ULONG *json_len);

/**
 * Verifies the audit trail of the session's token, and tells what was found as a JSON object: `ok`, how many records there are, the
 * number and hash of the last one, up to where the token's key has signed, and each fault with its place. The return value is CKR_OK
 * when the trail could be read, whatever was found: look at `ok`. Signatures are checked while somebody is logged in. A call for the
 * length verifies nothing, and tells the most that it takes.
 */
CK_RV SR_AuditVerify(CK_SESSION_HANDLE session,
                     CK_UTF8CHAR *json,
                     CK_ULONG *json_len);

/**
 * Writes records of the audit trail of the session's token as lines of JSON: as many as there is room for, from the one after the
 * number `after` (0 for all), and tells the number of the last one, to go on from. No line and the same number: there are no more. A
 * call for the length tells the least room that always takes a line; more room takes more lines at once.
 */
CK_RV SR_AuditExport(CK_SESSION_HANDLE session,
                     CK_ULONG after,
                     CK_UTF8CHAR *lines,
                     CK_ULONG *lines_len,
                     CK_ULONG *last);

/**
 * Wraps a key under the KMS master key of the session's token, as C_WrapKey with CKM_SR_KMS_WRAP does. The key must be
 * extractable. A call for the length asks no KMS; one that fits is one request.
 */
CK_RV SR_WrapKey(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_BYTE *wrapped, CK_ULONG *wrapped_len);

/**
 * Unwraps what [`SR_WrapKey`] or [`SR_GenerateDataKey`] wrapped, to a new object of this template. One request.
 */
CK_RV SR_UnwrapKey(CK_SESSION_HANDLE session,
                   const CK_BYTE *wrapped,
                   CK_ULONG wrapped_len,
                   const CK_ATTRIBUTE *attributes,
                   CK_ULONG count,
                   CK_OBJECT_HANDLE *key);

/**
 * Makes a data key: an AES key of 32 bytes behind a handle, and the same key wrapped under the KMS master key, to be kept and
 * unwrapped with [`SR_UnwrapKey`]. The template may be empty. A call for the length asks no KMS; one that fits is one request.
 */
CK_RV SR_GenerateDataKey(CK_SESSION_HANDLE session,
                         const CK_ATTRIBUTE *attributes,
                         CK_ULONG count,
                         CK_BYTE *wrapped,
                         CK_ULONG *wrapped_len,
                         CK_OBJECT_HANDLE *key);

/**
 * Rotates the KMS master key of the session's token, and wraps the token's outer key under the new version. What was wrapped
 * before still unwraps. Two requests, at any number of keys.
 */
CK_RV SR_RotateMasterKey(CK_SESSION_HANDLE session);

/**
 * Moves the session's token to the KMS provider of this name in the configuration. Afterwards the old provider is not needed
 * any more to open the token; a process that is killed meanwhile leaves the token where it was.
 */
CK_RV SR_MoveKms(CK_SESSION_HANDLE session,
                 const CK_UTF8CHAR *provider,
                 CK_ULONG provider_len);

/**
 * Asks the KMS of the session's token how it is, and tells it as a JSON object: type, key, version and state, or fault and error.
 * Counters of this process's calls are in it. A call for the length asks no KMS, and tells the most that it takes.
 */
CK_RV SR_GetKmsStatus(CK_SESSION_HANDLE session,
                      CK_UTF8CHAR *json,
                      CK_ULONG *json_len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* STRONGROOM_H */
