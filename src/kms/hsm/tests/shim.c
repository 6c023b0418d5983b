/* A PKCS #11 module that passes every call to another one, writes down which, and fails when it is told to.
 *
 * STRONGROOM_SHIM_MODULE  the module behind it
 * STRONGROOM_SHIM_NAME    32 characters to answer as manufacturer, if set: so Strongroom can be the device of a trial by hand
 * STRONGROOM_SHIM_FOLDER  a folder; `calls` in it gets a line for each call, a length query with a `?` behind it, and
 *                         `fault` may hold `FUNCTION RV TIMES`: RV as a number, or `hang` until the file is gone,
 *                         or `ourselves` for C_GetInfo, which then answers with Strongroom's name;
 *                         `type` may hold the CKA_KEY_TYPE of all keys that C_CreateObject makes
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "pkcs11.h"

static CK_FUNCTION_LIST real, ours;

static void path(char *out, size_t len, const char *name)
{
    snprintf(out, len, "%s/%s", getenv("STRONGROOM_SHIM_FOLDER"), name);
}

static void note(const char *function, const char *mark)
{
    char name[4096];
    path(name, sizeof name, "calls");
    FILE *file = fopen(name, "a");
    if (!file) abort();
    fprintf(file, "%s%s\n", function, mark);
    fclose(file);
}

/* Tells whether the call fails, and how. */
static int fails(const char *function, CK_RV *rv, char *how)
{
    char name[4096], wanted[64];
    int times;
    path(name, sizeof name, "fault");
    FILE *file = fopen(name, "r");
    if (!file) return 0;
    int read = fscanf(file, "%63s %31s %d", wanted, how, &times);
    fclose(file);
    if (read != 3 || times == 0 || strcmp(wanted, function) != 0) return 0;
    if (strcmp(how, "hang") == 0) {
        while (access(name, F_OK) == 0) usleep(10000);
        return 0;
    }
    file = fopen(name, "w");
    if (!file) abort();
    fprintf(file, "%s %s %d\n", wanted, how, times - 1);
    fclose(file);
    *rv = strtoul(how, NULL, 0);
    return 1;
}

/* `ends` is true for what ends an operation: it does so when it fails, too. */
#define CALL(name, params, args, query, ends)                                                                                  \
    static CK_RV my_##name params                                                                                              \
    {                                                                                                                          \
        CK_RV rv;                                                                                                              \
        char how[32];                                                                                                          \
        note(#name, (query) ? "?" : "");                                                                                       \
        if ((query) || !fails(#name, &rv, how)) return real.name args;                                                         \
        if (ends) real.name args;                                                                                              \
        return rv;                                                                                                             \
    }
#define PASS(name, params, args) CALL(name, params, args, 0, 0)

PASS(C_Initialize, (void *args), (args))
PASS(C_Finalize, (void *args), (args))
PASS(C_OpenSession, (CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *s),
     (slot, flags, app, notify, s))
PASS(C_CloseSession, (CK_SESSION_HANDLE s), (s))
PASS(C_CloseAllSessions, (CK_SLOT_ID slot), (slot))
PASS(C_Login, (CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_BYTE *pin, CK_ULONG len), (s, user, pin, len))
PASS(C_Logout, (CK_SESSION_HANDLE s), (s))
PASS(C_FindObjectsInit, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n), (s, t, n))
PASS(C_DestroyObject, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o), (s, o))
PASS(C_GetAttributeValue, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n), (s, o, t, n))
PASS(C_EncryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))
PASS(C_DecryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))
PASS(C_SignInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))
CALL(C_Encrypt, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG n, CK_BYTE *out, CK_ULONG *len), (s, in, n, out, len), !out, 1)
CALL(C_Decrypt, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG n, CK_BYTE *out, CK_ULONG *len), (s, in, n, out, len), !out, 1)
CALL(C_Sign, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG n, CK_BYTE *out, CK_ULONG *len), (s, in, n, out, len), !out, 1)
CALL(C_WrapKey,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE w, CK_OBJECT_HANDLE k, CK_BYTE *out, CK_ULONG *len),
     (s, m, w, k, out, len), !out, 0)
PASS(C_UnwrapKey,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE w, CK_BYTE *in, CK_ULONG n, CK_ATTRIBUTE *t, CK_ULONG c,
      CK_OBJECT_HANDLE *k),
     (s, m, w, in, n, t, c, k))
PASS(C_GenerateKey, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *k),
     (s, m, t, n, k))
PASS(C_GenerateKeyPair,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE *p, CK_ULONG c,
      CK_OBJECT_HANDLE *k, CK_OBJECT_HANDLE *q),
     (s, m, t, n, p, c, k, q))

static CK_RV my_C_GetInfo(CK_INFO *info)
{
    CK_RV rv;
    char how[32];
    note("C_GetInfo", "");
    int failed = fails("C_GetInfo", &rv, how);
    if (failed && strcmp(how, "ourselves") != 0) return rv;
    rv = real.C_GetInfo(info);
    const char *name = failed ? "Strongroom                      " : getenv("STRONGROOM_SHIM_NAME");
    if (name) memcpy(info->manufacturerID, name, sizeof info->manufacturerID);
    return rv;
}

static CK_RV my_C_CreateObject(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o)
{
    char name[4096];
    CK_KEY_TYPE type;
    note("C_CreateObject", "");
    path(name, sizeof name, "type");
    FILE *file = fopen(name, "r");
    if (file) {
        if (fscanf(file, "%lu", &type) != 1) abort();
        fclose(file);
        for (CK_ULONG at = 0; at < n; at++)
            if (t[at].type == CKA_KEY_TYPE) t[at].pValue = &type;
    }
    return real.C_CreateObject(s, t, n, o);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    CK_FUNCTION_LIST *found;
    CK_C_GetFunctionList get;
    void *module = dlopen(getenv("STRONGROOM_SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
    if (!module || !(get = (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList"))) return CKR_GENERAL_ERROR;
    CK_RV rv = get(&found);
    if (rv != CKR_OK) return rv;
    real = ours = *found;
    ours.C_GetFunctionList = C_GetFunctionList;
    ours.C_GetInfo = my_C_GetInfo;
#define TAKE(name) ours.name = my_##name
    TAKE(C_Initialize);
    TAKE(C_Finalize);
    TAKE(C_OpenSession);
    TAKE(C_CloseSession);
    TAKE(C_CloseAllSessions);
    TAKE(C_Login);
    TAKE(C_Logout);
    TAKE(C_FindObjectsInit);
    TAKE(C_CreateObject);
    TAKE(C_DestroyObject);
    TAKE(C_GetAttributeValue);
    TAKE(C_EncryptInit);
    TAKE(C_DecryptInit);
    TAKE(C_SignInit);
    TAKE(C_Encrypt);
    TAKE(C_Decrypt);
    TAKE(C_Sign);
    TAKE(C_WrapKey);
    TAKE(C_UnwrapKey);
    TAKE(C_GenerateKey);
    TAKE(C_GenerateKeyPair);
    *list = &ours;
    return CKR_OK;
}
