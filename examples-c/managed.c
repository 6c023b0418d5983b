/* Makes a managed Ethereum key in the token named on the command line, signs a digest so that it tells the public key,
 * rotates the key, and verifies with the old version.
 *
 *     cc examples-c/managed.c -Iinclude -Ltarget/release -lstrongroom -o managed
 *     STRONGROOM_PIN=... LD_LIBRARY_PATH=target/release ./managed wallet
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pkcs11.h>
#include <strongroom.h>

#define CHECK(call) check((call), #call)
#define TEXT(text) (const CK_UTF8CHAR *)(text), strlen(text)

/* Ends the program when a call fails, with the library's own words. */
static void check(CK_RV rv, const char *call) {
    CK_UTF8CHAR text[1024];
    CK_ULONG len = sizeof text;
    if (rv == CKR_OK) return;
    if (SR_LastError(text, &len) != CKR_OK) len = 0;
    fprintf(stderr, "%s: 0x%lx %.*s\n", call, (unsigned long)rv, (int)len, (const char *)text);
    exit(1);
}

/* Finds the slot of the token with a label. */
static CK_SLOT_ID find_token(const char *label) {
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64, i;
    CHECK(C_GetSlotList(CK_TRUE, slots, &count));
    for (i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        char padded[33];
        CHECK(C_GetTokenInfo(slots[i], &info));
        snprintf(padded, sizeof padded, "%-32s", label);
        if (memcmp(info.label, padded, 32) == 0) return slots[i];
    }
    fprintf(stderr, "there is no token \"%s\"\n", label);
    exit(1);
}

/* Finds the public key of a version. */
static CK_OBJECT_HANDLE public_key(CK_SESSION_HANDLE session, CK_ULONG version) {
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;
    CK_ULONG found = 0;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class},
                             {CKA_SR_OWNER, "alice", 5},
                             {CKA_SR_ASSET, "eth", 3},
                             {CKA_SR_VERSION, &version, sizeof version}};
    CHECK(C_FindObjectsInit(session, wanted, 4));
    CHECK(C_FindObjects(session, &key, 1, &found));
    CHECK(C_FindObjectsFinal(session));
    return key;
}

int main(int argc, char **argv) {
    CK_BYTE digest[32] = {1, 2, 3}, signature[65];
    CK_UTF8CHAR address[128];
    CK_ULONG address_len = sizeof address, len = sizeof signature;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key, next;
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    const char *pin = getenv("STRONGROOM_PIN");

    if (argc != 2 || pin == NULL) return fprintf(stderr, "usage: STRONGROOM_PIN=... managed TOKEN\n"), 2;
    CHECK(C_Initialize(NULL));
    CHECK(C_OpenSession(find_token(argv[1]), CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    CHECK(C_Login(session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)));
    CHECK(SR_GenerateKey(session, TEXT("alice"), TEXT("eth"), NULL, 0, &key, NULL, NULL, address, &address_len));
    CHECK(SR_SignRecoverable(session, key, digest, sizeof digest, signature, &len));
    printf("address %.*s, recovery number %d\n", (int)address_len, (const char *)address, signature[64]);
    CHECK(SR_RotateKey(session, TEXT("alice"), TEXT("eth"), NULL, 0, NULL, 0, 1, &next));
    CHECK(C_VerifyInit(session, &ecdsa, public_key(session, 1)));
    CHECK(C_Verify(session, digest, sizeof digest, signature, 64));
    printf("rotated; the signature of version 1 is verified\n");
    CHECK(C_Finalize(NULL));
    return 0;
}
