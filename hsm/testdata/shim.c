/*
 * A PKCS#11 module that stands before a real one and misbehaves on request.
 *
 *   SHIM_MODULE   the real module
 *   SHIM_CONTROL  a file of one line: FUNCTION ACTION ARG
 *                 rv HEX      return this code, without calling the module
 *                 once HEX    the same, and forget the order
 *                 crash 0     SIGSEGV, each time
 *                 crash 1     SIGSEGV, and forget the order
 *                 hang 0      never return
 *                 flags HEX   set these token flags (C_GetTokenInfo)
 *                 iv 0        encrypt under an IV of the module's own (C_EncryptInit)
 *                 longer 0    one byte too many (C_Encrypt, C_Decrypt, C_Sign, C_GenerateRandom)
 *                 wrong 0     first byte of the output changed (the same)
 *   SHIM_LOG      a file that gets the name of each function called
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "pkcs11go.h"

static CK_FUNCTION_LIST fake;
static CK_FUNCTION_LIST_PTR real;

struct order {
	char action[16];
	unsigned long arg;
};

static void forget(void)
{
	unlink(getenv("SHIM_CONTROL"));
}

static struct order ordered(const char *function)
{
	struct order o = { "", 0 };
	char name[64], action[16];
	unsigned long arg;
	int fd = open(getenv("SHIM_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
	if (fd >= 0) {
		dprintf(fd, "%s\n", function);
		close(fd);
	}
	FILE *f = fopen(getenv("SHIM_CONTROL"), "r");
	if (f == NULL)
		return o;
	if (fscanf(f, "%63s %15s %lx", name, action, &arg) == 3 && strcmp(name, function) == 0) {
		strcpy(o.action, action);
		o.arg = arg;
	}
	fclose(f);
	return o;
}

#define IS(a) (strcmp(o.action, a) == 0)

/* BEFORE obeys the orders that need no call of the module. */
#define BEFORE(fn)                                  \
	struct order o = ordered(#fn);              \
	if (IS("rv"))                               \
		return o.arg;                       \
	if (IS("once")) {                           \
		forget();                           \
		return o.arg;                       \
	}                                           \
	if (IS("crash")) {                          \
		if (o.arg)                          \
			forget();                   \
		signal(SIGSEGV, SIG_DFL);           \
		raise(SIGSEGV);                     \
	}                                           \
	while (IS("hang"))                          \
		pause();

#define AFTER(rv, out, len)                         \
	if ((rv) == CKR_OK && (out) != NULL) {      \
		if (IS("longer"))                   \
			*(len) += 1;                \
		if (IS("wrong"))                    \
			(out)[0] ^= 1;              \
	}

static CK_RV p_C_Initialize(CK_VOID_PTR a) { BEFORE(C_Initialize) return real->C_Initialize(a); }
static CK_RV p_C_GetSlotList(CK_BBOOL a, CK_SLOT_ID_PTR b, CK_ULONG_PTR c) { BEFORE(C_GetSlotList) return real->C_GetSlotList(a, b, c); }
static CK_RV p_C_OpenSession(CK_SLOT_ID a, CK_FLAGS b, CK_VOID_PTR c, CK_NOTIFY d, CK_SESSION_HANDLE_PTR e) { BEFORE(C_OpenSession) return real->C_OpenSession(a, b, c, d, e); }
static CK_RV p_C_CloseSession(CK_SESSION_HANDLE a) { BEFORE(C_CloseSession) return real->C_CloseSession(a); }
static CK_RV p_C_Login(CK_SESSION_HANDLE a, CK_USER_TYPE b, CK_UTF8CHAR_PTR c, CK_ULONG d) { BEFORE(C_Login) return real->C_Login(a, b, c, d); }
static CK_RV p_C_FindObjectsInit(CK_SESSION_HANDLE a, CK_ATTRIBUTE_PTR b, CK_ULONG c) { BEFORE(C_FindObjectsInit) return real->C_FindObjectsInit(a, b, c); }
static CK_RV p_C_FindObjects(CK_SESSION_HANDLE a, CK_OBJECT_HANDLE_PTR b, CK_ULONG c, CK_ULONG_PTR d) { BEFORE(C_FindObjects) return real->C_FindObjects(a, b, c, d); }
static CK_RV p_C_FindObjectsFinal(CK_SESSION_HANDLE a) { BEFORE(C_FindObjectsFinal) return real->C_FindObjectsFinal(a); }
static CK_RV p_C_GetAttributeValue(CK_SESSION_HANDLE a, CK_OBJECT_HANDLE b, CK_ATTRIBUTE_PTR c, CK_ULONG d) { BEFORE(C_GetAttributeValue) return real->C_GetAttributeValue(a, b, c, d); }
static CK_RV p_C_DecryptInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c) { BEFORE(C_DecryptInit) return real->C_DecryptInit(a, b, c); }
static CK_RV p_C_SignInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c) { BEFORE(C_SignInit) return real->C_SignInit(a, b, c); }
static CK_RV p_C_GenerateKey(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_ATTRIBUTE_PTR c, CK_ULONG d, CK_OBJECT_HANDLE_PTR e) { BEFORE(C_GenerateKey) return real->C_GenerateKey(a, b, c, d, e); }
static CK_RV p_C_GenerateKeyPair(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_ATTRIBUTE_PTR c, CK_ULONG d, CK_ATTRIBUTE_PTR e, CK_ULONG f, CK_OBJECT_HANDLE_PTR g, CK_OBJECT_HANDLE_PTR h) { BEFORE(C_GenerateKeyPair) return real->C_GenerateKeyPair(a, b, c, d, e, f, g, h); }

static CK_RV p_C_GetTokenInfo(CK_SLOT_ID a, CK_TOKEN_INFO_PTR b)
{
	BEFORE(C_GetTokenInfo)
	CK_RV rv = real->C_GetTokenInfo(a, b);
	if (rv == CKR_OK && IS("flags"))
		b->flags |= o.arg;
	return rv;
}

static CK_RV p_C_EncryptInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c)
{
	BEFORE(C_EncryptInit)
	if (IS("iv"))
		memset(((CK_GCM_PARAMS *)b->pParameter)->pIv, 0xA5, 12);
	return real->C_EncryptInit(a, b, c);
}

static CK_RV p_C_Encrypt(CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c, CK_BYTE_PTR d, CK_ULONG_PTR e)
{
	BEFORE(C_Encrypt)
	CK_RV rv = real->C_Encrypt(a, b, c, d, e);
	AFTER(rv, d, e)
	return rv;
}

static CK_RV p_C_Decrypt(CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c, CK_BYTE_PTR d, CK_ULONG_PTR e)
{
	BEFORE(C_Decrypt)
	CK_RV rv = real->C_Decrypt(a, b, c, d, e);
	AFTER(rv, d, e)
	return rv;
}

static CK_RV p_C_Sign(CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c, CK_BYTE_PTR d, CK_ULONG_PTR e)
{
	BEFORE(C_Sign)
	CK_RV rv = real->C_Sign(a, b, c, d, e);
	AFTER(rv, d, e)
	return rv;
}

static CK_RV p_C_GenerateRandom(CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c) { BEFORE(C_GenerateRandom) return real->C_GenerateRandom(a, b, c); }

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
	void *lib = dlopen(getenv("SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL)
		return CKR_GENERAL_ERROR;
	CK_C_GetFunctionList get = (CK_C_GetFunctionList)dlsym(lib, "C_GetFunctionList");
	CK_RV rv = get(&real);
	if (rv != CKR_OK)
		return rv;
	fake = *real;
#define TAKE(fn) fake.fn = p_##fn;
	TAKE(C_Initialize)
	TAKE(C_GetSlotList)
	TAKE(C_GetTokenInfo)
	TAKE(C_OpenSession)
	TAKE(C_CloseSession)
	TAKE(C_Login)
	TAKE(C_FindObjectsInit)
	TAKE(C_FindObjects)
	TAKE(C_FindObjectsFinal)
	TAKE(C_GetAttributeValue)
	TAKE(C_EncryptInit)
	TAKE(C_Encrypt)
	TAKE(C_DecryptInit)
	TAKE(C_Decrypt)
	TAKE(C_SignInit)
	TAKE(C_Sign)
	TAKE(C_GenerateRandom)
	TAKE(C_GenerateKey)
	TAKE(C_GenerateKeyPair)
	*list = &fake;
	return CKR_OK;
}
