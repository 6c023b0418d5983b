/* Makes a secp256k1 key in the token named on the command line, signs with it, and verifies.
 *
 *     cc examples-c/sign.c -Iinclude -Ltarget/release -lstrongroom -o sign
 *     STRONGROOM_PIN=... LD_LIBRARY_PATH=target/release ./sign wallet
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pkcs11.h>
#include <strongroom.h>

#define CHECK(call) check((call), #call)

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

int main(int argc, char **argv) {
    CK_BYTE curve[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a}; /* the object identifier of secp256k1 */
    CK_BYTE message[] = "block 1", signature[64];
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE public_template[] = {{CKA_EC_PARAMS, curve, sizeof curve}, {CKA_VERIFY, &yes, sizeof yes}};
    CK_ATTRIBUTE private_template[] = {{CKA_SIGN, &yes, sizeof yes}};
    CK_MECHANISM generate = {CKM_EC_KEY_PAIR_GEN, NULL, 0}, ecdsa = {CKM_ECDSA_SHA256, NULL, 0};
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE public_key, private_key;
    CK_ULONG len = sizeof signature;
    const char *pin = getenv("STRONGROOM_PIN");

    if (argc != 2 || pin == NULL) return fprintf(stderr, "usage: STRONGROOM_PIN=... sign TOKEN\n"), 2;
    CHECK(C_Initialize(NULL));
    CHECK(C_OpenSession(find_token(argv[1]), CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    CHECK(C_Login(session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)));
    CHECK(C_GenerateKeyPair(session, &generate, public_template, 2, private_template, 1, &public_key, &private_key));
    CHECK(C_SignInit(session, &ecdsa, private_key));
    CHECK(C_Sign(session, message, sizeof message - 1, signature, &len));
    CHECK(C_VerifyInit(session, &ecdsa, public_key));
    CHECK(C_Verify(session, message, sizeof message - 1, signature, len));
    printf("signed and verified: %lu bytes\n", (unsigned long)len);
    CHECK(C_Finalize(NULL));
    return 0;
}
