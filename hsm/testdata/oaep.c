/*
 * A PKCS#11 module that does RSA-OAEP with SHA-256, made of one that doesn't:
 * keys that may do CKM_RSA_PKCS_OAEP are kept as CKM_RSA_X_509 keys of the real
 * module, and the padding is taken off here.
 *
 *   SHIM_MODULE   the real module
 *   OAEP_ONLY     when set, AES neither encrypts nor wraps
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "pkcs11go.h"

static CK_FUNCTION_LIST fake;
static CK_FUNCTION_LIST_PTR real;
static CK_SESSION_HANDLE ours; /* the session whose decryption is OAEP; the worker has one thread */

/* SHA-256, FIPS 180-4. */
static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define ROT(x, n) ((x) >> (n) | (x) << (32 - (n)))

static void sha256(const uint8_t *in, size_t n, uint8_t out[32])
{
	uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	size_t blocks = (n + 9 + 63) / 64;
	uint8_t *m = calloc(blocks, 64);
	memcpy(m, in, n);
	m[n] = 0x80;
	for (int i = 0; i < 8; i++)
		m[blocks * 64 - 1 - i] = (uint8_t)((uint64_t)n * 8 >> (8 * i));
	for (size_t b = 0; b < blocks; b++) {
		uint32_t w[64], v[8];
		for (int i = 0; i < 16; i++) {
			uint8_t *p = m + b * 64 + i * 4;
			w[i] = (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
		}
		for (int i = 16; i < 64; i++)
			w[i] = w[i - 16] + w[i - 7] + (ROT(w[i - 15], 7) ^ ROT(w[i - 15], 18) ^ w[i - 15] >> 3)
				+ (ROT(w[i - 2], 17) ^ ROT(w[i - 2], 19) ^ w[i - 2] >> 10);
		memcpy(v, h, sizeof v);
		for (int i = 0; i < 64; i++) {
			uint32_t t1 = v[7] + (ROT(v[4], 6) ^ ROT(v[4], 11) ^ ROT(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
			uint32_t t2 = (ROT(v[0], 2) ^ ROT(v[0], 13) ^ ROT(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
			memmove(v + 1, v, 7 * sizeof v[0]);
			v[4] += t1;
			v[0] = t1 + t2;
		}
		for (int i = 0; i < 8; i++)
			h[i] += v[i];
	}
	free(m);
	for (int i = 0; i < 32; i++)
		out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* mask xors MGF1 of from into to. */
static void mask(uint8_t *to, size_t n, const uint8_t *from, size_t m)
{
	uint8_t in[1024], block[32];
	memcpy(in, from, m);
	for (size_t i = 0; i < n; i++) {
		if (i % 32 == 0) {
			uint32_t c = (uint32_t)(i / 32);
			uint8_t counter[4] = { c >> 24, c >> 16, c >> 8, c };
			memcpy(in + m, counter, 4);
			sha256(in, m + 4, block);
		}
		to[i] ^= block[i % 32];
	}
}

/* swap replaces the only mechanism of CKA_ALLOWED_MECHANISMS. */
static void swap(CK_ATTRIBUTE_PTR a, CK_ULONG n, CK_MECHANISM_TYPE from, CK_MECHANISM_TYPE to)
{
	for (CK_ULONG i = 0; i < n; i++)
		if (a[i].type == CKA_ALLOWED_MECHANISMS && a[i].pValue != NULL && a[i].ulValueLen == sizeof from
		    && memcmp(a[i].pValue, &from, sizeof from) == 0)
			memcpy(a[i].pValue, &to, sizeof to);
}

static CK_RV p_C_GenerateKeyPair(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_ATTRIBUTE_PTR c, CK_ULONG d, CK_ATTRIBUTE_PTR e, CK_ULONG f, CK_OBJECT_HANDLE_PTR g, CK_OBJECT_HANDLE_PTR h)
{
	swap(e, f, CKM_RSA_PKCS_OAEP, CKM_RSA_X_509);
	return real->C_GenerateKeyPair(a, b, c, d, e, f, g, h);
}

static CK_RV p_C_CreateObject(CK_SESSION_HANDLE a, CK_ATTRIBUTE_PTR b, CK_ULONG c, CK_OBJECT_HANDLE_PTR d)
{
	swap(b, c, CKM_RSA_PKCS_OAEP, CKM_RSA_X_509);
	return real->C_CreateObject(a, b, c, d);
}

static CK_RV p_C_GetAttributeValue(CK_SESSION_HANDLE a, CK_OBJECT_HANDLE b, CK_ATTRIBUTE_PTR c, CK_ULONG d)
{
	CK_RV rv = real->C_GetAttributeValue(a, b, c, d);
	swap(c, d, CKM_RSA_X_509, CKM_RSA_PKCS_OAEP);
	return rv;
}

static CK_RV p_C_DecryptInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c)
{
	CK_MECHANISM raw = { CKM_RSA_X_509, NULL, 0 };
	CK_RSA_PKCS_OAEP_PARAMS_PTR p = b->pParameter;
	ours = 0;
	if (b->mechanism == CKM_RSA_X_509)
		return CKR_MECHANISM_INVALID; /* this module shows no bare RSA */
	if (b->mechanism != CKM_RSA_PKCS_OAEP)
		return real->C_DecryptInit(a, b, c);
	if (b->ulParameterLen != sizeof *p || p->hashAlg != CKM_SHA256 || p->mgf != CKG_MGF1_SHA256
	    || p->source != CKZ_DATA_SPECIFIED || p->ulSourceDataLen != 0)
		return CKR_MECHANISM_PARAM_INVALID;
	CK_RV rv = real->C_DecryptInit(a, &raw, c);
	if (rv == CKR_OK)
		ours = a;
	return rv;
}

static CK_RV p_C_Decrypt(CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c, CK_BYTE_PTR d, CK_ULONG_PTR e)
{
	uint8_t em[1024], empty[32];
	CK_ULONG n = sizeof em, i;
	if (a != ours || d == NULL)
		return real->C_Decrypt(a, b, c, d, e);
	CK_RV rv = real->C_Decrypt(a, b, c, em, &n);
	if (rv != CKR_OK)
		return rv;
	mask(em + 1, 32, em + 33, n - 33);
	mask(em + 33, n - 33, em + 1, 32);
	sha256(em, 0, empty);
	for (i = 65; i < n && em[i] == 0; i++)
		;
	if (em[0] != 0 || memcmp(em + 33, empty, 32) != 0 || i == n || em[i] != 1)
		return CKR_ENCRYPTED_DATA_INVALID;
	i++;
	if (*e < n - i)
		return CKR_BUFFER_TOO_SMALL;
	memcpy(d, em + i, n - i);
	*e = n - i;
	return CKR_OK;
}

static CK_RV p_C_EncryptInit(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c)
{
	return getenv("OAEP_ONLY") ? CKR_MECHANISM_INVALID : real->C_EncryptInit(a, b, c);
}

static CK_RV p_C_WrapKey(CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c, CK_OBJECT_HANDLE d, CK_BYTE_PTR e, CK_ULONG_PTR f)
{
	return getenv("OAEP_ONLY") ? CKR_MECHANISM_INVALID : real->C_WrapKey(a, b, c, d, e, f);
}

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
	fake.C_GenerateKeyPair = p_C_GenerateKeyPair;
	fake.C_CreateObject = p_C_CreateObject;
	fake.C_GetAttributeValue = p_C_GetAttributeValue;
	fake.C_DecryptInit = p_C_DecryptInit;
	fake.C_Decrypt = p_C_Decrypt;
	fake.C_EncryptInit = p_C_EncryptInit;
	fake.C_WrapKey = p_C_WrapKey;
	*list = &fake;
	return CKR_OK;
}
