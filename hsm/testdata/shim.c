/*
 * A PKCS#11 module that stands before a real one and misbehaves on request.
 *
 *   SHIM_MODULE   the real module
 *   SHIM_CONTROL  a file of at most 8 lines: FUNCTION ACTION ARG
 *                 rv HEX      return this code, without calling the module
 *                 once HEX    the same, and forget the orders to this function
 *                 crash 0     SIGSEGV, each time
 *                 crash 1     SIGSEGV, and forget the orders to this function
 *                 hang 0      never return
 *                 flags HEX   set these token flags (C_GetTokenInfo)
 *                 iv 0        encrypt under an IV of the module's own (C_EncryptInit)
 *                 longer 0    one byte too many (C_Encrypt, C_Decrypt, C_Sign, C_GenerateRandom)
 *                 shorter 0   one byte too few (the same)
 *                 wrong 0     first byte of the output changed (the same)
 *                 nomech HEX  refuse this mechanism (C_…Init, C_WrapKey, C_UnwrapKey, C_Generate…)
 *                 noattr HEX  refuse templates with this attribute (C_Generate…), or not
 *                             know it (C_GetAttributeValue)
 *                 attr HEX    give this boolean attribute the other way round (C_GetAttributeValue)
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

#define MAX 8

struct orders {
	int n;
	struct {
		char function[64], action[16];
		unsigned long arg;
	} o[MAX];
};

static struct orders control(void)
{
	struct orders all = { 0 };
	FILE *f = fopen(getenv("SHIM_CONTROL"), "r");
	if (f == NULL)
		return all;
	while (all.n < MAX && fscanf(f, "%63s %15s %lx", all.o[all.n].function, all.o[all.n].action, &all.o[all.n].arg) == 3)
		all.n++;
	fclose(f);
	return all;
}

/* forget takes the orders to one function out of the file. */
static void forget(const char *function)
{
	struct orders all = control();
	char fresh[4096];
	snprintf(fresh, sizeof fresh, "%s.forget", getenv("SHIM_CONTROL"));
	FILE *f = fopen(fresh, "w");
	if (f == NULL)
		abort();
	for (int i = 0; i < all.n; i++)
		if (strcmp(all.o[i].function, function) != 0)
			fprintf(f, "%s %s %lx\n", all.o[i].function, all.o[i].action, all.o[i].arg);
	fclose(f);
	rename(fresh, getenv("SHIM_CONTROL"));
}

/* ordered returns the orders to one function. */
static struct orders ordered(const char *function)
{
	struct orders all = control(), mine = { 0 };
	int fd = open(getenv("SHIM_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
	if (fd >= 0) {
		dprintf(fd, "%s\n", function);
		close(fd);
	}
	for (int i = 0; i < all.n; i++)
		if (strcmp(all.o[i].function, function) == 0)
			mine.o[mine.n++] = all.o[i];
	return mine;
}

/* arg finds the order to do action, and its argument. */
static int order(struct orders *all, const char *action, unsigned long *arg)
{
	for (int i = 0; i < all->n; i++)
		if (strcmp(all->o[i].action, action) == 0) {
			*arg = all->o[i].arg;
			return 1;
		}
	return 0;
}

#define IS(a) order(&o, a, &arg)

/* EACH runs over the arguments of all orders to do action. */
#define EACH(a) for (int i = 0; i < o.n; i++) if (strcmp(o.o[i].action, a) == 0 && ((arg = o.o[i].arg) || 1))

/* BEFORE obeys the orders that need no call of the module. */
#define BEFORE(fn)                                  \
	unsigned long arg;                          \
	struct orders o = ordered(#fn);             \
	if (IS("rv"))                               \
		return arg;                         \
	if (IS("once")) {                           \
		forget(#fn);                        \
		return arg;                         \
	}                                           \
	if (IS("crash")) {                          \
		if (arg)                            \
			forget(#fn);                \
		signal(SIGSEGV, SIG_DFL);           \
		raise(SIGSEGV);                     \
	}                                           \
	while (IS("hang"))                          \
		pause();

#define MECHANISM(m)                                \
	EACH("nomech")                              \
		if (arg == (m)->mechanism)          \
			return CKR_MECHANISM_INVALID;

#define TEMPLATE(t, n)                              \
	EACH("noattr")                              \
		for (CK_ULONG k = 0; k < (n); k++)  \
			if (arg == (t)[k].type)     \
				return CKR_ATTRIBUTE_TYPE_INVALID;

#define AFTER(rv, out, len)                         \
	if ((rv) == CKR_OK && (out) != NULL) {      \
		if (IS("longer"))                   \
			*(len) += 1;                \
		if (IS("shorter") && *(len) > 0)    \
			*(len) -= 1;                \
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
static CK_RV p_C_GetAttributeValue(CK_SESSION_HANDLE a, CK_OBJECT_HANDLE b, CK_ATTRIBUTE_PTR c, CK_ULONG d)
{
	BEFORE(C_GetAttributeValue)
	CK_RV rv = real->C_GetAttributeValue(a, b, c, d);
	EACH("noattr")
		for (CK_ULONG k = 0; k < d; k++)
			if (arg == c[k].type) {
				c[k].ulValueLen = CK_UNAVAILABLE_INFORMATION;
				rv = CKR_ATTRIBUTE_TYPE_INVALID;
			}
	EACH("attr")
		for (CK_ULONG k = 0; k < d; k++)
			if (arg == c[k].type && c[k].pValue != NULL && c[k].ulValueLen == 1)
				*(CK_BBOOL *)c[k].pValue ^= 1;
	return rv;
}
static CK_RV p_C_DecryptInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c) { BEFORE(C_DecryptInit) MECHANISM(b) return real->C_DecryptInit(a, b, c); }
static CK_RV p_C_SignInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c) { BEFORE(C_SignInit) MECHANISM(b) return real->C_SignInit(a, b, c); }
static CK_RV p_C_GenerateKey(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_ATTRIBUTE_PTR c, CK_ULONG d, CK_OBJECT_HANDLE_PTR e) { BEFORE(C_GenerateKey) MECHANISM(b) TEMPLATE(c, d) return real->C_GenerateKey(a, b, c, d, e); }
static CK_RV p_C_GenerateKeyPair(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_ATTRIBUTE_PTR c, CK_ULONG d, CK_ATTRIBUTE_PTR e, CK_ULONG f, CK_OBJECT_HANDLE_PTR g, CK_OBJECT_HANDLE_PTR h) { BEFORE(C_GenerateKeyPair) MECHANISM(b) TEMPLATE(c, d) TEMPLATE(e, f) return real->C_GenerateKeyPair(a, b, c, d, e, f, g, h); }

static CK_RV p_C_GetTokenInfo(CK_SLOT_ID a, CK_TOKEN_INFO_PTR b)
{
	BEFORE(C_GetTokenInfo)
	CK_RV rv = real->C_GetTokenInfo(a, b);
	if (rv == CKR_OK && IS("flags"))
		b->flags |= arg;
	return rv;
}

static CK_RV p_C_EncryptInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c)
{
	BEFORE(C_EncryptInit)
	MECHANISM(b)
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

static CK_RV p_C_WrapKey(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c, CK_OBJECT_HANDLE d, CK_BYTE_PTR e, CK_ULONG_PTR f)
{
	BEFORE(C_WrapKey)
	MECHANISM(b)
	CK_RV rv = real->C_WrapKey(a, b, c, d, e, f);
	AFTER(rv, e, f)
	return rv;
}

static CK_RV p_C_UnwrapKey(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c, CK_BYTE_PTR d, CK_ULONG e, CK_ATTRIBUTE_PTR f, CK_ULONG g, CK_OBJECT_HANDLE_PTR h) { BEFORE(C_UnwrapKey) MECHANISM(b) return real->C_UnwrapKey(a, b, c, d, e, f, g, h); }
static CK_RV p_C_CreateObject(CK_SESSION_HANDLE a, CK_ATTRIBUTE_PTR b, CK_ULONG c, CK_OBJECT_HANDLE_PTR d) { BEFORE(C_CreateObject) TEMPLATE(b, c) return real->C_CreateObject(a, b, c, d); }
static CK_RV p_C_DestroyObject(CK_SESSION_HANDLE a, CK_OBJECT_HANDLE b) { BEFORE(C_DestroyObject) return real->C_DestroyObject(a, b); }
static CK_RV p_C_Finalize(CK_VOID_PTR a) { BEFORE(C_Finalize) return real->C_Finalize(a); }
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
	TAKE(C_Finalize)
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
	TAKE(C_CreateObject)
	TAKE(C_DestroyObject)
	TAKE(C_WrapKey)
	TAKE(C_UnwrapKey)
	TAKE(C_GenerateKey)
	TAKE(C_GenerateKeyPair)
	*list = &fake;
	return CKR_OK;
}
