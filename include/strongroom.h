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
 * What opens a backup; each may be NULL and 0. A session with the token of the backup needs none of them.
 */
typedef struct SR_BACKUP_SECRETS {
  /**
   * The user PIN, or the SO PIN, of the token at the time of the backup. It takes the KMS as well.
   */
  const CK_UTF8CHAR *pin;
  /**
   * The length of the PIN.
   */
  CK_ULONG pin_len;
  /**
   * The password of a recovery envelope.
   */
  const CK_UTF8CHAR *recovery_password;
  /**
   * The length of the password.
   */
  CK_ULONG recovery_password_len;
  /**
   * The paths of files with shares of a recovery key, one a line.
   */
  const CK_UTF8CHAR *share_files;
  /**
   * The length of the paths.
   */
  CK_ULONG share_files_len;
  /**
   * The SO PIN from now on, for a restore by recovery; NULL keeps that of the backup.
   */
  const CK_UTF8CHAR *new_so_pin;
  /**
   * The length of the new SO PIN.
   */
  CK_ULONG new_so_pin_len;
  /**
   * The user PIN from now on, for a restore by recovery; NULL keeps that of the backup.
   */
  const CK_UTF8CHAR *new_pin;
  /**
   * The length of the new user PIN.
   */
  CK_ULONG new_pin_len;
} SR_BACKUP_SECRETS;

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
   * See [`SR_GenerateKey`].
   */
  CK_RV (*SR_GenerateKey)(CK_SESSION_HANDLE session,
                          const CK_UTF8CHAR *owner,
                          CK_ULONG owner_len,
                          const CK_UTF8CHAR *asset,
                          CK_ULONG asset_len,
                          const CK_UTF8CHAR *password,
                          CK_ULONG password_len,
                          CK_OBJECT_HANDLE *key,
                          CK_BYTE *public_key,
                          CK_ULONG *public_key_len,
                          CK_UTF8CHAR *address,
                          CK_ULONG *address_len);
  /**
   * See [`SR_FindKey`].
   */
  CK_RV (*SR_FindKey)(CK_SESSION_HANDLE session,
                      const CK_UTF8CHAR *owner,
                      CK_ULONG owner_len,
                      const CK_UTF8CHAR *asset,
                      CK_ULONG asset_len,
                      CK_ULONG version,
                      CK_OBJECT_HANDLE *key);
  /**
   * See [`SR_GetKeyInfo`].
   */
  CK_RV (*SR_GetKeyInfo)(CK_SESSION_HANDLE session,
                         const CK_UTF8CHAR *owner,
                         CK_ULONG owner_len,
                         const CK_UTF8CHAR *asset,
                         CK_ULONG asset_len,
                         CK_UTF8CHAR *json,
                         CK_ULONG *json_len);
  /**
   * See [`SR_ListVersions`].
   */
  CK_RV (*SR_ListVersions)(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *owner,
                           CK_ULONG owner_len,
                           const CK_UTF8CHAR *asset,
                           CK_ULONG asset_len,
                           CK_UTF8CHAR *json,
                           CK_ULONG *json_len);
  /**
   * See [`SR_SetVersionState`].
   */
  CK_RV (*SR_SetVersionState)(CK_SESSION_HANDLE session,
                              const CK_UTF8CHAR *owner,
                              CK_ULONG owner_len,
                              const CK_UTF8CHAR *asset,
                              CK_ULONG asset_len,
                              CK_ULONG version,
                              CK_ULONG state);
  /**
   * See [`SR_DestroyVersion`].
   */
  CK_RV (*SR_DestroyVersion)(CK_SESSION_HANDLE session,
                             const CK_UTF8CHAR *owner,
                             CK_ULONG owner_len,
                             const CK_UTF8CHAR *asset,
                             CK_ULONG asset_len,
                             CK_ULONG version,
                             const CK_UTF8CHAR *confirmation,
                             CK_ULONG confirmation_len);
  /**
   * See [`SR_GetAddress`].
   */
  CK_RV (*SR_GetAddress)(CK_SESSION_HANDLE session,
                         const CK_UTF8CHAR *owner,
                         CK_ULONG owner_len,
                         const CK_UTF8CHAR *asset,
                         CK_ULONG asset_len,
                         CK_ULONG version,
                         const CK_UTF8CHAR *form,
                         CK_ULONG form_len,
                         CK_UTF8CHAR *address,
                         CK_ULONG *address_len);
  /**
   * See [`SR_SignRecoverable`].
   */
  CK_RV (*SR_SignRecoverable)(CK_SESSION_HANDLE session,
                              CK_OBJECT_HANDLE key,
                              const CK_BYTE *digest,
                              CK_ULONG digest_len,
                              CK_BYTE *signature,
                              CK_ULONG *signature_len);
  /**
   * See [`SR_RotateKey`].
   */
  CK_RV (*SR_RotateKey)(CK_SESSION_HANDLE session,
                        const CK_UTF8CHAR *owner,
                        CK_ULONG owner_len,
                        const CK_UTF8CHAR *asset,
                        CK_ULONG asset_len,
                        const CK_UTF8CHAR *old_password,
                        CK_ULONG old_password_len,
                        const CK_UTF8CHAR *new_password,
                        CK_ULONG new_password_len,
                        CK_ULONG expected,
                        CK_OBJECT_HANDLE *key);
  /**
   * See [`SR_RotateDue`].
   */
  CK_RV (*SR_RotateDue)(CK_SESSION_HANDLE session, CK_ULONG at_most, CK_ULONG *rotated, CK_ULONG *left, CK_ULONG *failed);
  /**
   * See [`SR_GetRotationPolicy`].
   */
  CK_RV (*SR_GetRotationPolicy)(CK_SESSION_HANDLE session,
                                const CK_UTF8CHAR *owner,
                                CK_ULONG owner_len,
                                const CK_UTF8CHAR *asset,
                                CK_ULONG asset_len,
                                CK_UTF8CHAR *json,
                                CK_ULONG *json_len);
  /**
   * See [`SR_SetRotationPolicy`].
   */
  CK_RV (*SR_SetRotationPolicy)(CK_SESSION_HANDLE session,
                                const CK_UTF8CHAR *owner,
                                CK_ULONG owner_len,
                                const CK_UTF8CHAR *asset,
                                CK_ULONG asset_len,
                                CK_ULONG rotation_interval_days,
                                CK_ULONG max_key_age_days,
                                CK_ULONG max_key_uses,
                                CK_BBOOL auto_rotate);
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
  /**
   * See [`SR_UnlockKey`].
   */
  CK_RV (*SR_UnlockKey)(CK_SESSION_HANDLE session,
                        const CK_UTF8CHAR *owner,
                        CK_ULONG owner_len,
                        const CK_UTF8CHAR *asset,
                        CK_ULONG asset_len,
                        CK_ULONG version,
                        const CK_UTF8CHAR *password,
                        CK_ULONG password_len,
                        CK_ULONG time_to_live,
                        CK_OBJECT_HANDLE *key);
  /**
   * See [`SR_LockKey`].
   */
  CK_RV (*SR_LockKey)(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key);
  /**
   * See [`SR_ChangeKeyPassword`].
   */
  CK_RV (*SR_ChangeKeyPassword)(CK_SESSION_HANDLE session,
                                const CK_UTF8CHAR *owner,
                                CK_ULONG owner_len,
                                const CK_UTF8CHAR *asset,
                                CK_ULONG asset_len,
                                const CK_UTF8CHAR *old_password,
                                CK_ULONG old_password_len,
                                const CK_UTF8CHAR *new_password,
                                CK_ULONG new_password_len);
  /**
   * See [`SR_ResetKeyTries`].
   */
  CK_RV (*SR_ResetKeyTries)(CK_SESSION_HANDLE session,
                            const CK_UTF8CHAR *owner,
                            CK_ULONG owner_len,
                            const CK_UTF8CHAR *asset,
                            CK_ULONG asset_len);
  /**
   * See [`SR_ImportLegacyHex`].
   */
  CK_RV (*SR_ImportLegacyHex)(CK_SESSION_HANDLE session,
                              const CK_UTF8CHAR *source,
                              CK_ULONG source_len,
                              const CK_UTF8CHAR *report,
                              CK_ULONG report_len,
                              CK_FLAGS flags,
                              CK_ULONG *imported,
                              CK_ULONG *present,
                              CK_ULONG *failed);
  /**
   * See [`SR_ExportBackup`].
   */
  CK_RV (*SR_ExportBackup)(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *owner,
                           CK_ULONG owner_len,
                           const CK_UTF8CHAR *asset,
                           CK_ULONG asset_len,
                           const CK_UTF8CHAR *path,
                           CK_ULONG path_len,
                           CK_FLAGS flags,
                           CK_UTF8CHAR *json,
                           CK_ULONG *json_len);
  /**
   * See [`SR_VerifyBackup`].
   */
  CK_RV (*SR_VerifyBackup)(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *path,
                           CK_ULONG path_len,
                           const struct SR_BACKUP_SECRETS *secrets,
                           CK_UTF8CHAR *json,
                           CK_ULONG *json_len);
  /**
   * See [`SR_ImportBackup`].
   */
  CK_RV (*SR_ImportBackup)(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *owner,
                           CK_ULONG owner_len,
                           const CK_UTF8CHAR *asset,
                           CK_ULONG asset_len,
                           const CK_UTF8CHAR *path,
                           CK_ULONG path_len,
                           const struct SR_BACKUP_SECRETS *secrets,
                           CK_FLAGS flags,
                           CK_UTF8CHAR *json,
                           CK_ULONG *json_len);
  /**
   * See [`SR_AddRecoveryPassword`].
   */
  CK_RV (*SR_AddRecoveryPassword)(CK_SESSION_HANDLE session,
                                  const CK_UTF8CHAR *name,
                                  CK_ULONG name_len,
                                  const CK_UTF8CHAR *password,
                                  CK_ULONG password_len);
  /**
   * See [`SR_AddRecoveryKms`].
   */
  CK_RV (*SR_AddRecoveryKms)(CK_SESSION_HANDLE session,
                             const CK_UTF8CHAR *name,
                             CK_ULONG name_len,
                             const CK_UTF8CHAR *provider,
                             CK_ULONG provider_len);
  /**
   * See [`SR_AddRecoveryShares`].
   */
  CK_RV (*SR_AddRecoveryShares)(CK_SESSION_HANDLE session,
                                const CK_UTF8CHAR *name,
                                CK_ULONG name_len,
                                CK_ULONG threshold,
                                CK_ULONG count,
                                const CK_UTF8CHAR *folder,
                                CK_ULONG folder_len);
  /**
   * See [`SR_RemoveRecovery`].
   */
  CK_RV (*SR_RemoveRecovery)(CK_SESSION_HANDLE session, const CK_UTF8CHAR *name, CK_ULONG name_len);
  /**
   * See [`SR_ListRecovery`].
   */
  CK_RV (*SR_ListRecovery)(CK_SESSION_HANDLE session, CK_UTF8CHAR *json, CK_ULONG *json_len);
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
 * How many days after it was made a version is due for rotation, where the key has a policy of its own; 0 is never (CK_ULONG).
 */
#define CKA_SR_ROTATION_INTERVAL (CKA_SR_BASE | 11)

/**
 * After how many days the active version is refused, where the key has a policy of its own; 0 is never (CK_ULONG).
 */
#define CKA_SR_MAX_AGE (CKA_SR_BASE | 12)

/**
 * Whether a due key is rotated without being asked for by name, where it has a policy of its own (CK_BBOOL).
 */
#define CKA_SR_AUTO_ROTATE (CKA_SR_BASE | 13)

/**
 * How often the active version makes something new at most, where the key has a policy of its own; 0 is no limit (CK_ULONG).
 */
#define CKA_SR_MAX_USES (CKA_SR_BASE | 18)

/**
 * How many uses of the version are taken, of which the last may not have been made yet (CK_ULONG).
 */
#define CKA_SR_USES (CKA_SR_BASE | 19)

/**
 * Whether the secret is sealed under its owner's own password, which each use needs (CK_BBOOL).
 */
#define CKA_SR_PASSWORD (CKA_SR_BASE | 32)

/**
 * Tries of that password since the last right one, each counted before it is made; the latest version has it (CK_ULONG).
 */
#define CKA_SR_PASSWORD_TRIES (CKA_SR_BASE | 33)

/**
 * How many of them were wrong (CK_ULONG).
 */
#define CKA_SR_PASSWORD_WRONG (CKA_SR_BASE | 34)

/**
 * Whether the secret is under a data key of its own, which the KMS wraps and each login asks for once (CK_BBOOL).
 */
#define CKA_SR_DATA_KEY (CKA_SR_BASE | 48)

/**
 * A version that does all that its key can do; a managed key has one at most.
 */
#define SR_STATE_ACTIVE 1

/**
 * A version that was rotated away: it verifies, decrypts and unwraps, and signs for who names it.
 */
#define SR_STATE_ROTATED 2

/**
 * A version that does nothing until its state is changed.
 */
#define SR_STATE_DISABLED 3

/**
 * SR_ImportLegacyHex moves all records or none.
 */
#define SR_LEGACY_STRICT 1

/**
 * SR_ImportLegacyHex says what would be moved, and moves nothing.
 */
#define SR_LEGACY_DRY_RUN 2

/**
 * SR_ExportBackup may replace a file that is there. No flag of a backup is one of another function.
 */
#define SR_BACKUP_OVERWRITE 16

/**
 * SR_ImportBackup may replace objects that differ from those of the backup.
 */
#define SR_BACKUP_REPLACE 32

/**
 * SR_ImportBackup may remove what the backup does not have: later versions of its keys; with a whole token, all other objects.
 */
#define SR_BACKUP_REMOVE 64

/**
 * SR_ImportBackup tells what it would do, and changes nothing.
 */
#define SR_BACKUP_DRY_RUN 128

/**
 * The class of a recovery envelope of the token; no find gives one.
 */
#define CKO_SR_RECOVERY (CKA_SR_BASE | 1)

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
 * Tells the state of the library as a JSON object; under `rotation`, also which managed keys are due, of each token whose user is
 * logged in. For that it reads all of them. The length that is told leaves room for what becomes due between two calls.
 */
CK_RV SR_GetStatus(CK_UTF8CHAR *json,
                   CK_ULONG *json_len);

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
 * Writes a backup of the session's token to a file: sealed records, nothing in plaintext, as they are at one moment while the
 * token is in use. With an owner only his managed keys, with owner and asset one of them, with all versions. The file appears whole or
 * not at all, readable by its owner alone. The SO or the user must be logged in; for an owner or a key, the user. Tells as JSON what
 * was written. A buffer of NULL asks for the most that this takes, and writes no file.
 */
CK_RV SR_ExportBackup(CK_SESSION_HANDLE session,
                      const CK_UTF8CHAR *owner,
                      CK_ULONG owner_len,
                      const CK_UTF8CHAR *asset,
                      CK_ULONG asset_len,
                      const CK_UTF8CHAR *path,
                      CK_ULONG path_len,
                      CK_FLAGS flags,
                      CK_UTF8CHAR *json,
                      CK_ULONG *json_len);

/**
 * Proves that a backup would restore, without restoring: opens every record, checks that the document is as it was written, and
 * asks its KMS. The session may be 0; one of the backup's own token needs no secrets. Tells as JSON what the backup holds.
 * A buffer of NULL asks for the most that this takes, and reads nothing.
 */
CK_RV SR_VerifyBackup(CK_SESSION_HANDLE session,
                      const CK_UTF8CHAR *path,
                      CK_ULONG path_len,
                      const struct SR_BACKUP_SECRETS *secrets,
                      CK_UTF8CHAR *json,
                      CK_ULONG *json_len);

/**
 * Restores a backup in one transaction. With session 0 a whole token: same serial number, ids, labels, PINs, versions; if the
 * configuration names another KMS for it, it is wrapped by that from then on. With a session, into its token: keys of another token
 * are sealed anew, and owner and asset may name what is taken out of a larger backup. Nothing that is there is replaced or
 * removed without a flag (SR_BACKUP_...). A second time changes nothing. Tells as JSON what became of the records.
 * A buffer of NULL asks for the most that this takes, and restores nothing.
 */
CK_RV SR_ImportBackup(CK_SESSION_HANDLE session,
                      const CK_UTF8CHAR *owner,
                      CK_ULONG owner_len,
                      const CK_UTF8CHAR *asset,
                      CK_ULONG asset_len,
                      const CK_UTF8CHAR *path,
                      CK_ULONG path_len,
                      const struct SR_BACKUP_SECRETS *secrets,
                      CK_FLAGS flags,
                      CK_UTF8CHAR *json,
                      CK_ULONG *json_len);

/**
 * Adds a recovery envelope to the session's token, which every backup from then on carries: this password (16 bytes at the least)
 * opens the token's keys without its KMS and its PINs. The SO must be logged in.
 */
CK_RV SR_AddRecoveryPassword(CK_SESSION_HANDLE session,
                             const CK_UTF8CHAR *name,
                             CK_ULONG name_len,
                             const CK_UTF8CHAR *password,
                             CK_ULONG password_len);

/**
 * Adds a recovery envelope that another KMS of the configuration opens, by its name there. Whoever that KMS serves opens the
 * token's keys with it. The SO must be logged in.
 */
CK_RV SR_AddRecoveryKms(CK_SESSION_HANDLE session,
                        const CK_UTF8CHAR *name,
                        CK_ULONG name_len,
                        const CK_UTF8CHAR *provider,
                        CK_ULONG provider_len);

/**
 * Adds a recovery envelope that any `threshold` of `count` shares open (Shamir), and writes each share into a file of its own in a
 * folder, readable by its owner alone. Whoever holds so many of them has the token's keys: move them apart. The SO must be logged in.
 */
CK_RV SR_AddRecoveryShares(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *name,
                           CK_ULONG name_len,
                           CK_ULONG threshold,
                           CK_ULONG count,
                           const CK_UTF8CHAR *folder,
                           CK_ULONG folder_len);

/**
 * Removes a recovery envelope from the session's token. Backups that have it keep it. The SO must be logged in.
 */
CK_RV SR_RemoveRecovery(CK_SESSION_HANDLE session, const CK_UTF8CHAR *name, CK_ULONG name_len);

/**
 * Lists the recovery envelopes of the session's token as a JSON array: name, means, and what they need. Somebody must be logged in.
 */
CK_RV SR_ListRecovery(CK_SESSION_HANDLE session,
                      CK_UTF8CHAR *json,
                      CK_ULONG *json_len);

/**
 * Makes a managed key, version 1, and gives the handle of its private or secret key, its public key (SubjectPublicKeyInfo; empty
 * for a secret key) and its address (empty for plain types). Assets: btc, eth, sol, secp256k1, p256, p384, p521, ed25519,
 * rsa2048, rsa3072, rsa4096, aes128, aes256. With a password (else NULL and 0), the key has CKA_ALWAYS_AUTHENTICATE: each use asks for
 * it by C_Login(CKU_CONTEXT_SPECIFIC), or SR_UnlockKey once. Nobody can open the key without it. Both of `public_key` and
 * `public_key_len` may be NULL, and of `address` and `address_len`. A buffer of NULL with a length asks for the most that it takes, and
 * makes no key.
 */
CK_RV SR_GenerateKey(CK_SESSION_HANDLE session,
                     const CK_UTF8CHAR *owner,
                     CK_ULONG owner_len,
                     const CK_UTF8CHAR *asset,
                     CK_ULONG asset_len,
                     const CK_UTF8CHAR *password,
                     CK_ULONG password_len,
                     CK_OBJECT_HANDLE *key,
                     CK_BYTE *public_key,
                     CK_ULONG *public_key_len,
                     CK_UTF8CHAR *address,
                     CK_ULONG *address_len);

/**
 * Finds the private or secret key of a managed key: of the version with this number, or of the active one for 0.
 */
CK_RV SR_FindKey(CK_SESSION_HANDLE session,
                 const CK_UTF8CHAR *owner,
                 CK_ULONG owner_len,
                 const CK_UTF8CHAR *asset,
                 CK_ULONG asset_len,
                 CK_ULONG version,
                 CK_OBJECT_HANDLE *key);

/**
 * Describes a managed key as a JSON object: owner, asset, its latest version with state, times, public key and addresses, and the
 * rules of its rotation.
 */
CK_RV SR_GetKeyInfo(CK_SESSION_HANDLE session,
                    const CK_UTF8CHAR *owner,
                    CK_ULONG owner_len,
                    const CK_UTF8CHAR *asset,
                    CK_ULONG asset_len,
                    CK_UTF8CHAR *json,
                    CK_ULONG *json_len);

/**
 * Describes every version of a managed key as a JSON array, the oldest first.
 */
CK_RV SR_ListVersions(CK_SESSION_HANDLE session,
                      const CK_UTF8CHAR *owner,
                      CK_ULONG owner_len,
                      const CK_UTF8CHAR *asset,
                      CK_ULONG asset_len,
                      CK_UTF8CHAR *json,
                      CK_ULONG *json_len);

/**
 * Changes the state of a version (SR_STATE_...). The latest version is active or disabled, an older one rotated or disabled.
 */
CK_RV SR_SetVersionState(CK_SESSION_HANDLE session,
                         const CK_UTF8CHAR *owner,
                         CK_ULONG owner_len,
                         const CK_UTF8CHAR *asset,
                         CK_ULONG asset_len,
                         CK_ULONG version,
                         CK_ULONG state);

/**
 * Destroys a version for good, both halves. What it encrypted can never be decrypted again. It must not be active, and the
 * confirmation is its CKA_UNIQUE_ID, which SR_ListVersions tells as unique_id.
 */
CK_RV SR_DestroyVersion(CK_SESSION_HANDLE session,
                        const CK_UTF8CHAR *owner,
                        CK_ULONG owner_len,
                        const CK_UTF8CHAR *asset,
                        CK_ULONG asset_len,
                        CK_ULONG version,
                        const CK_UTF8CHAR *confirmation,
                        CK_ULONG confirmation_len);

/**
 * Gives the address of a version, or of the active one for 0. The form is the asset's usual one when it is NULL, or p2wpkh, p2pkh,
 * p2sh-p2wpkh, p2pkh-uncompressed, eip55, base58.
 */
CK_RV SR_GetAddress(CK_SESSION_HANDLE session,
                    const CK_UTF8CHAR *owner,
                    CK_ULONG owner_len,
                    const CK_UTF8CHAR *asset,
                    CK_ULONG asset_len,
                    CK_ULONG version,
                    const CK_UTF8CHAR *form,
                    CK_ULONG form_len,
                    CK_UTF8CHAR *address,
                    CK_ULONG *address_len);

/**
 * Signs a digest of 32 bytes with a private key on secp256k1, managed or not, and gives 65 bytes: r, s and the recovery number
 * (0 to 3). s is the lower of its two values, and the number belongs to it.
 */
CK_RV SR_SignRecoverable(CK_SESSION_HANDLE session,
                         CK_OBJECT_HANDLE key,
                         const CK_BYTE *digest,
                         CK_ULONG digest_len,
                         CK_BYTE *signature,
                         CK_ULONG *signature_len);

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
 * before still unwraps. Two requests, at any number of keys; two more for each key that has a data key of its own (`scope = "key"` of
 * the KMS), which is wrapped anew too. A call that was broken off has lost nothing, and the next one finishes the work.
 */
CK_RV SR_RotateMasterKey(CK_SESSION_HANDLE session);

/**
 * Moves the session's token to the KMS provider of this name in the configuration. Afterwards the old provider is not needed
 * any more to open the token; a process that is killed meanwhile leaves the token where it was. Keys that have a data key of their own
 * move with it, and get one or lose it as the `scope` of the new provider says: a call that was broken off among them leaves a token that
 * needs both providers, and the next SR_MoveKms goes on.
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

/**
 * Moves the records of the legacy system in, each as version 1 of a managed key. `source` is the path of a file with a JSON object on
 * each line: owner, asset, ciphertext (the secret in hexadecimal, for RSA its PKCS #8), and perhaps public_key and address, which are
 * checked. The file is read here and never changed, so that no secret passes through this call. `report` is the path of a new file, or
 * empty for none: a JSON object for each line with its number, owner, asset, result (imported, present, failed, importable, withheld),
 * address and reason. `flags` are SR_LEGACY_STRICT and SR_LEGACY_DRY_RUN, or 0. Lines that fail do not keep the others from being
 * moved, and are counted: CKR_OK says that the file was read to its end. With SR_LEGACY_STRICT a line that fails is CKR_DATA_INVALID, and
 * nothing is moved. A key that is there already is present, and not moved again; another key of that name is left as it is, and the line
 * fails.
 */
CK_RV SR_ImportLegacyHex(CK_SESSION_HANDLE session,
                         const CK_UTF8CHAR *source,
                         CK_ULONG source_len,
                         const CK_UTF8CHAR *report,
                         CK_ULONG report_len,
                         CK_FLAGS flags,
                         CK_ULONG *imported,
                         CK_ULONG *present,
                         CK_ULONG *failed);

/**
 * Unlocks a managed key that has a password, for this session alone: the version with this number, or the active one for 0. Gives the
 * handle of its private or secret key, which then needs no login of its own, until SR_LockKey, C_Logout, C_CloseSession, or for so
 * many seconds (0: no limit). Wrong passwords count, over all processes, and lock the key after `max_attempts` of the configuration.
 */
CK_RV SR_UnlockKey(CK_SESSION_HANDLE session,
                   const CK_UTF8CHAR *owner,
                   CK_ULONG owner_len,
                   const CK_UTF8CHAR *asset,
                   CK_ULONG asset_len,
                   CK_ULONG version,
                   const CK_UTF8CHAR *password,
                   CK_ULONG password_len,
                   CK_ULONG time_to_live,
                   CK_OBJECT_HANDLE *key);

/**
 * Locks a key that this session has unlocked: operations with it end, and it is wiped from memory. A key that is not unlocked stays so.
 */
CK_RV SR_LockKey(CK_SESSION_HANDLE session,
                 CK_OBJECT_HANDLE key);

/**
 * Gives a managed key another password. Every version that the old one opens is sealed under the new one, all of them or none; versions
 * that a rotation left under another password keep that. No other process and no open handle is disturbed.
 */
CK_RV SR_ChangeKeyPassword(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *owner,
                           CK_ULONG owner_len,
                           const CK_UTF8CHAR *asset,
                           CK_ULONG asset_len,
                           const CK_UTF8CHAR *old_password,
                           CK_ULONG old_password_len,
                           const CK_UTF8CHAR *new_password,
                           CK_ULONG new_password_len);

/**
 * Lets a managed key be tried again that is locked after wrong passwords. The SO must be logged in; the password stays what it is.
 */
CK_RV SR_ResetKeyTries(CK_SESSION_HANDLE session,
                       const CK_UTF8CHAR *owner,
                       CK_ULONG owner_len,
                       const CK_UTF8CHAR *asset,
                       CK_ULONG asset_len);

/**
 * Makes a new version of a managed key and gives the handle of its private or secret key. The old version verifies and decrypts for
 * ever. `expected` is the version that is to be replaced: another latest version is CKR_ACTION_PROHIBITED, so that of several
 * callers one rotates; 0 is whichever is the latest. A key with a password needs that as the old one; the new version is under the new
 * one, or under the same when that is NULL and 0, and older versions stay under the passwords that they had. A key without a password
 * takes no old one, and gets one with a new one.
 */
CK_RV SR_RotateKey(CK_SESSION_HANDLE session,
                   const CK_UTF8CHAR *owner,
                   CK_ULONG owner_len,
                   const CK_UTF8CHAR *asset,
                   CK_ULONG asset_len,
                   const CK_UTF8CHAR *old_password,
                   CK_ULONG old_password_len,
                   const CK_UTF8CHAR *new_password,
                   CK_ULONG new_password_len,
                   CK_ULONG expected,
                   CK_OBJECT_HANDLE *key);

/**
 * Rotates the managed keys of the session's token that are due and whose rules allow it, at most so many; 0 is all. Tells how many
 * it rotated, how many are due still (those with a password of their own among them), and how many could not be rotated; the log names
 * those. Any number of processes may do this at once: each key is rotated once.
 */
CK_RV SR_RotateDue(CK_SESSION_HANDLE session,
                   CK_ULONG at_most,
                   CK_ULONG *rotated,
                   CK_ULONG *left,
                   CK_ULONG *failed);

/**
 * Tells the rules by which a managed key is rotated as a JSON object, and under `set_by` where each comes from: the key, its asset, the
 * token, the configuration, or the default. With an empty owner and asset, those of keys of the token that have none of their own.
 */
CK_RV SR_GetRotationPolicy(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *owner,
                           CK_ULONG owner_len,
                           const CK_UTF8CHAR *asset,
                           CK_ULONG asset_len,
                           CK_UTF8CHAR *json,
                           CK_ULONG *json_len);

/**
 * Gives a managed key rules of its own: after how many days it is due, after how many its active version makes nothing new, after how
 * many signatures, ciphertexts and wrapped keys it does so too (0 is never, for all three), and whether it is rotated by itself when it
 * is due. Rules that contradict each other are CKR_ARGUMENTS_BAD.
 */
CK_RV SR_SetRotationPolicy(CK_SESSION_HANDLE session,
                           const CK_UTF8CHAR *owner,
                           CK_ULONG owner_len,
                           const CK_UTF8CHAR *asset,
                           CK_ULONG asset_len,
                           CK_ULONG rotation_interval_days,
                           CK_ULONG max_key_age_days,
                           CK_ULONG max_key_uses,
                           CK_BBOOL auto_rotate);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* STRONGROOM_H */
