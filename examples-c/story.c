/* The life of one key: made for an owner with a password, signs, is rotated, its old version verifies, the master key is rotated, a
 * backup is written and restored on another host, and the key signs there again. The other host is a second configuration here, with
 * a store and a master key of its own.
 *
 *     cc examples-c/story.c -Iinclude -Ltarget/release -lstrongroom -o story
 *     STRONGROOM_PIN=... STRONGROOM_SO_PIN=... LD_LIBRARY_PATH=target/release ./story wallet elsewhere.toml wallet.backup
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pkcs11.h>
#include <strongroom.h>

#define CHECK(call) check((call), #call)
#define TEXT(text) (const CK_UTF8CHAR *)(text), strlen(text)
#define KEY TEXT("user123"), TEXT("btc")

static const char PASSWORD[] = "correct horse 1", NEXT_PASSWORD[] = "battery staple 2", PAPER[] = "a long recovery password";
static const CK_BYTE DIGEST[32] = {1, 2, 3};

/* Ends the program when a call fails, with the library's own words. */
static void check(CK_RV rv, const char *call) {
    CK_UTF8CHAR text[1024];
    CK_ULONG len = sizeof text;
    if (rv == CKR_OK) return;
    if (SR_LastError(text, &len) != CKR_OK) len = 0;
    fprintf(stderr, "%s: 0x%lx %.*s\n", call, (unsigned long)rv, (int)len, (const char *)text);
    exit(1);
}

/* Starts the library with a configuration; NULL is the usual one. */
static void start(const char *config) {
    CK_C_INITIALIZE_ARGS args = {NULL, NULL, NULL, NULL, CKF_OS_LOCKING_OK, NULL};
    args.pReserved = (void *)config;
    CHECK(C_Initialize(&args));
}

/* Opens a session of the token with a label, and logs in. */
static CK_SESSION_HANDLE login(const char *label, CK_USER_TYPE user, const char *pin) {
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64, i;
    char padded[33];
    snprintf(padded, sizeof padded, "%-32s", label);
    CHECK(C_GetSlotList(CK_TRUE, slots, &count));
    for (i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        CK_SESSION_HANDLE session;
        CHECK(C_GetTokenInfo(slots[i], &info));
        if (memcmp(info.label, padded, 32) != 0) continue;
        CHECK(C_OpenSession(slots[i], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
        CHECK(C_Login(session, user, (CK_UTF8CHAR *)pin, strlen(pin)));
        return session;
    }
    fprintf(stderr, "there is no token \"%s\"\n", label);
    exit(1);
}

/* Signs the digest with a version under its owner's password: r and s in 64 bytes. */
static void sign(CK_SESSION_HANDLE session, CK_ULONG version, const char *password, CK_BYTE *signature) {
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    CK_OBJECT_HANDLE key;
    CK_ULONG len = 64;
    CHECK(SR_UnlockKey(session, KEY, version, TEXT(password), 0, &key));
    CHECK(C_SignInit(session, &ecdsa, key));
    CHECK(C_Sign(session, (CK_BYTE *)DIGEST, sizeof DIGEST, signature, &len));
    CHECK(SR_LockKey(session, key));
}

/* Verifies a signature with the public key of a version. */
static void verify(CK_SESSION_HANDLE session, CK_ULONG version, CK_BYTE *signature) {
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;
    CK_ULONG found = 0;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class},
                             {CKA_SR_OWNER, "user123", 7},
                             {CKA_SR_ASSET, "btc", 3},
                             {CKA_SR_VERSION, &version, sizeof version}};
    CHECK(C_FindObjectsInit(session, wanted, 4));
    CHECK(C_FindObjects(session, &key, 1, &found));
    CHECK(C_FindObjectsFinal(session));
    CHECK(C_VerifyInit(session, &ecdsa, key));
    CHECK(C_Verify(session, (CK_BYTE *)DIGEST, sizeof DIGEST, signature, 64));
    printf("version %lu: its signature is verified\n", version);
}

int main(int argc, char **argv) {
    const char *pin = getenv("STRONGROOM_PIN"), *so_pin = getenv("STRONGROOM_SO_PIN");
    CK_BYTE first[64], second[64], again[64];
    CK_UTF8CHAR json[32768];
    CK_ULONG len = sizeof json;
    SR_BACKUP_SECRETS secrets = {0};
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;

    if (argc != 4 || pin == NULL || so_pin == NULL)
        return fprintf(stderr, "usage: STRONGROOM_PIN=... STRONGROOM_SO_PIN=... story TOKEN OTHER-CONFIG BACKUP\n"), 2;
    start(NULL);
    session = login(argv[1], CKU_USER, pin);
    CHECK(SR_GenerateKey(session, KEY, TEXT(PASSWORD), &key, NULL, NULL, NULL, NULL));
    sign(session, 1, PASSWORD, first);
    CHECK(SR_RotateKey(session, KEY, TEXT(PASSWORD), TEXT(NEXT_PASSWORD), 1, &key));
    sign(session, 2, NEXT_PASSWORD, second);
    verify(session, 1, first);
    CHECK(SR_RotateMasterKey(session));
    CHECK(C_Logout(session));
    CHECK(C_Login(session, CKU_SO, (CK_UTF8CHAR *)so_pin, strlen(so_pin)));
    CHECK(SR_AddRecoveryPassword(session, TEXT("paper"), TEXT(PAPER)));
    CHECK(SR_ExportBackup(session, NULL, 0, NULL, 0, TEXT(argv[3]), 0, json, &len));
    CHECK(C_Finalize(NULL));

    start(argv[2]);
    secrets.recovery_password = (const CK_UTF8CHAR *)PAPER;
    secrets.recovery_password_len = strlen(PAPER);
    /* The PINs of the backup are of no use without its KMS, so they are set anew; here to what they were. */
    secrets.new_pin = (const CK_UTF8CHAR *)pin;
    secrets.new_pin_len = strlen(pin);
    secrets.new_so_pin = (const CK_UTF8CHAR *)so_pin;
    secrets.new_so_pin_len = strlen(so_pin);
    len = sizeof json;
    CHECK(SR_ImportBackup(0, NULL, 0, NULL, 0, TEXT(argv[3]), &secrets, 0, json, &len));
    printf("elsewhere: %.*s\n", (int)len, (const char *)json);
    session = login(argv[1], CKU_USER, pin);
    verify(session, 1, first);
    verify(session, 2, second);
    sign(session, 2, NEXT_PASSWORD, again);
    verify(session, 2, again);
    CHECK(C_Finalize(NULL));
    return 0;
}
