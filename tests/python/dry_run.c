/* Restores a backup over a token that has one more key, through the header's flags: the dry run tells and changes nothing. */

#include "pkcs11.h"
#include "strongroom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(text) (CK_UTF8CHAR *)(text), strlen(text)
#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        CK_RV rv = (call);                                                                                             \
        if (rv != CKR_OK)                                                                                              \
            return fprintf(stderr, "%s: %#lx\n", #call, rv), 1;                                                        \
    } while (0)

int main(int argc, char **argv) {
    static CK_UTF8CHAR json[65536];
    CK_FLAGS all = SR_BACKUP_REPLACE | SR_BACKUP_REMOVE | SR_BACKUP_DRY_RUN;
    CK_SLOT_ID slots[2];
    CK_ULONG count = 2, len = sizeof json;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;

    if (argc != 3)
        return fprintf(stderr, "usage: dry_run PIN BACKUP\n"), 2;
    CHECK(C_Initialize(NULL));
    CHECK(C_GetSlotList(CK_TRUE, slots, &count));
    CHECK(C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    CHECK(C_Login(session, CKU_USER, TEXT(argv[1])));
    CHECK(SR_ExportBackup(session, NULL, 0, NULL, 0, TEXT(argv[2]), SR_BACKUP_OVERWRITE, json, &len));
    CHECK(SR_GenerateKey(session, TEXT("bob"), TEXT("eth"), NULL, 0, &key, NULL, NULL, NULL, NULL));

    len = sizeof json;
    CHECK(SR_ImportBackup(session, NULL, 0, NULL, 0, TEXT(argv[2]), NULL, all, json, &len));
    printf("%.*s\n", (int)len, (const char *)json);
    len = sizeof json;
    CHECK(SR_GetKeyInfo(session, TEXT("bob"), TEXT("eth"), json, &len));
    /* What these flags were before they had names of their own means nothing now. */
    for (CK_FLAGS old = 1; old <= 4; old *= 2)
        if (SR_ImportBackup(session, NULL, 0, NULL, 0, TEXT(argv[2]), NULL, old, json, &len) != CKR_ARGUMENTS_BAD)
            return fprintf(stderr, "the flag %lu is taken\n", old), 1;
    CHECK(C_Finalize(NULL));
    return 0;
}
