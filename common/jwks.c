#include "common/jwks.h"

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"

#define NUMBER_MAX 1024u /* bytes of a key's numbers: RSA of 8192 bits */
#define P256_BYTES 32

/* ---------------------------------------------------------------- what a key is for */

/* 0: for nothing that is known here. */
static unsigned algorithm_of(const EVP_PKEY *key)
{
	char group[32];
	size_t len;

	if (EVP_PKEY_is_a(key, "RSA"))
		return CFG_ALG_RS256;
	if (EVP_PKEY_is_a(key, "ED25519"))
		return CFG_ALG_EDDSA;
	if (EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof(group), &len) == 1 &&
	    strcmp(group, "prime256v1") == 0)
		return CFG_ALG_ES256;
	return 0;
}

static int add(struct jwks *out, struct jwk key, const char **wrong)
{
	struct jwk *more = realloc(out->keys, (out->n + 1) * sizeof(*more));

	if (more == NULL) {
		*wrong = "no memory";
		return -1;
	}
	out->keys = more;
	out->keys[out->n++] = key;
	return 0;
}

/* Takes `key` over; passes over what is not asked for. */
static int add_public(struct jwks *out, EVP_PKEY *key, const char *kid, unsigned algorithms,
		      const char **wrong)
{
	struct jwk k = {.key = key, .algorithm = (enum cfg_algorithm)algorithm_of(key)};

	if ((k.algorithm & algorithms) == 0) {
		EVP_PKEY_free(key);
		return 0;
	}
	if (k.algorithm == CFG_ALG_RS256 && EVP_PKEY_get_bits(key) < JWKS_RSA_MIN)
		*wrong = "an RSA key has less than 2048 bits";
	else if (out->n == JWKS_MAX)
		*wrong = "there are more than 64 keys";
	else if (kid != NULL && (k.kid = strdup(kid)) == NULL)
		*wrong = "no memory";
	if (*wrong == NULL && add(out, k, wrong) == 0)
		return 0;
	EVP_PKEY_free(key);
	free(k.kid);
	return -1;
}

static int add_secret(struct jwks *out, struct slice secret, const char *kid, const char **wrong)
{
	struct jwk k = {.algorithm = CFG_ALG_HS256};
	char *copy = NULL;

	if (secret.len < JWKS_SECRET_MIN)
		*wrong = "a secret has less than 32 bytes";
	else if (out->n == JWKS_MAX)
		*wrong = "there are more than 64 keys";
	else if ((copy = malloc(secret.len)) == NULL || (kid != NULL && (k.kid = strdup(kid)) == NULL))
		*wrong = "no memory";
	if (*wrong == NULL) {
		memcpy(copy, secret.p, secret.len);
		k.secret = (struct slice){copy, secret.len};
		if (add(out, k, wrong) == 0)
			return 0;
	}
	free(copy);
	free(k.kid);
	return -1;
}

/* ---------------------------------------------------------------- PEM */

static EVP_PKEY *from_der(const char *name, const unsigned char *der, long len, const char **wrong)
{
	const unsigned char *p = der;
	EVP_PKEY *key = NULL;
	X509 *x;

	if (strstr(name, "PRIVATE") != NULL) {
		*wrong = "a private key stands there: public ones belong here";
		return NULL;
	}
	if (strcmp(name, "PUBLIC KEY") == 0) {
		key = d2i_PUBKEY(NULL, &p, len);
	} else if (strcmp(name, "RSA PUBLIC KEY") == 0) {
		key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, len);
	} else if (strcmp(name, "CERTIFICATE") == 0 && (x = d2i_X509(NULL, &p, len)) != NULL) {
		key = X509_get_pubkey(x);
		X509_free(x);
	}
	if (key == NULL)
		*wrong = "a block of PEM is no public key and no certificate";
	return key;
}

bool jwks_is_end_of_pem(void)
{
	unsigned long e = ERR_peek_last_error();

	return ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
}

static int parse_pem(struct jwks *out, struct slice text, unsigned algorithms, const char **wrong)
{
	BIO *bio = BIO_new_mem_buf(text.p, (int)text.len);
	char *name, *header;
	unsigned char *der;
	EVP_PKEY *key;
	long len;
	int rc = 0;

	if (bio == NULL) {
		*wrong = "no memory";
		return -1;
	}
	ERR_clear_error();
	while (rc == 0 && PEM_read_bio(bio, &name, &header, &der, &len) == 1) {
		key = from_der(name, der, len, wrong);
		rc = key == NULL ? -1 : add_public(out, key, NULL, algorithms, wrong);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_clear_free(der, (size_t)len);
	}
	if (rc == 0 && !jwks_is_end_of_pem()) {
		*wrong = "a block of PEM is damaged";
		rc = -1;
	}
	ERR_clear_error();
	BIO_free(bio);
	return rc;
}

/* ---------------------------------------------------------------- JWK */

/* A member of base64url: its bytes, at most `max`, into dst. Returns how many, or 0. */
static size_t get_bytes(json_t *jwk, const char *member, unsigned char *dst, size_t max)
{
	const char *text = json_string_value(json_object_get(jwk, member));
	char bytes[BASE64URL_DECODED_MAX(NUMBER_MAX * 4 / 3 + 4)];
	size_t len = text == NULL ? 0 : strlen(text);
	ssize_t n;

	if (len == 0 || len > NUMBER_MAX * 4 / 3 + 4)
		return 0;
	n = base64url_decode((struct slice){text, len}, bytes);
	if (n <= 0 || (size_t)n > max)
		return 0;
	memcpy(dst, bytes, (size_t)n);
	return (size_t)n;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *b)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(b);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *key = NULL;

	if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
		key = NULL;
	EVP_PKEY_CTX_free(ctx);
	OSSL_PARAM_free(params);
	return key;
}

static EVP_PKEY *rsa_key(json_t *jwk)
{
	unsigned char n[NUMBER_MAX], e[NUMBER_MAX];
	size_t n_len = get_bytes(jwk, "n", n, sizeof(n)), e_len = get_bytes(jwk, "e", e, sizeof(e));
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	BIGNUM *bn = BN_bin2bn(n, (int)n_len, NULL), *be = BN_bin2bn(e, (int)e_len, NULL);
	EVP_PKEY *key = NULL;

	if (n_len > 0 && e_len > 0 && b != NULL && bn != NULL && be != NULL &&
	    OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, bn) == 1 &&
	    OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, be) == 1)
		key = from_params("RSA", b);
	OSSL_PARAM_BLD_free(b);
	BN_free(bn);
	BN_free(be);
	return key;
}

static EVP_PKEY *p256_key(json_t *jwk)
{
	unsigned char point[1 + 2 * P256_BYTES] = {4}; /* uncompressed */
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	EVP_PKEY *key = NULL;

	if (b != NULL && get_bytes(jwk, "x", point + 1, P256_BYTES) == P256_BYTES &&
	    get_bytes(jwk, "y", point + 1 + P256_BYTES, P256_BYTES) == P256_BYTES &&
	    OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
	    OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) == 1)
		key = from_params("EC", b);
	OSSL_PARAM_BLD_free(b);
	return key;
}

static EVP_PKEY *ed25519_key(json_t *jwk)
{
	unsigned char x[32];

	if (get_bytes(jwk, "x", x, sizeof(x)) != sizeof(x))
		return NULL;
	return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, sizeof(x));
}

static bool is_text(json_t *jwk, const char *member, const char *want)
{
	const char *s = json_string_value(json_object_get(jwk, member));

	return s != NULL && strcmp(s, want) == 0;
}

/* Is the key for verifying signatures with `alg`, as far as it says? (RFC 7517, 4.2 to 4.4) */
static bool is_meant(json_t *jwk, const char *alg)
{
	json_t *use = json_object_get(jwk, "use"), *ops = json_object_get(jwk, "key_ops"), *op;
	bool may_verify = ops == NULL;
	size_t i;

	json_array_foreach(ops, i, op)
	{
		const char *s = json_string_value(op);

		may_verify |= s != NULL && strcmp(s, "verify") == 0;
	}
	return (use == NULL || is_text(jwk, "use", "sig")) && may_verify &&
	       (json_object_get(jwk, "alg") == NULL || is_text(jwk, "alg", alg));
}

/* "k" (RFC 7518, 6.4) */
static int add_oct(struct jwks *out, json_t *jwk, const char *kid, const char **wrong)
{
	unsigned char k[NUMBER_MAX];
	size_t n = get_bytes(jwk, "k", k, sizeof(k));
	int rc = add_secret(out, (struct slice){(char *)k, n}, kid, wrong);

	OPENSSL_cleanse(k, sizeof(k));
	return rc;
}

static int parse_jwk(struct jwks *out, json_t *jwk, unsigned algorithms, const char **wrong)
{
	static const struct {
		const char *kty, *crv, *alg;
		enum cfg_algorithm algorithm;
		EVP_PKEY *(*make)(json_t *jwk);
	} kinds[] = {
		{"RSA", NULL, "RS256", CFG_ALG_RS256, rsa_key},
		{"EC", "P-256", "ES256", CFG_ALG_ES256, p256_key},
		{"OKP", "Ed25519", "EdDSA", CFG_ALG_EDDSA, ed25519_key},
		{"oct", NULL, "HS256", CFG_ALG_HS256, NULL},
	};
	const char *kid = json_string_value(json_object_get(jwk, "kid"));
	EVP_PKEY *key;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (!is_text(jwk, "kty", kinds[i].kty) ||
		    (kinds[i].crv != NULL && !is_text(jwk, "crv", kinds[i].crv)) ||
		    (kinds[i].algorithm & algorithms) == 0 || !is_meant(jwk, kinds[i].alg))
			continue;
		if (kinds[i].make == NULL)
			return add_oct(out, jwk, kid, wrong);
		key = kinds[i].make(jwk);
		if (key == NULL) {
			*wrong = "a key of the set is not what it says it is";
			return -1;
		}
		return add_public(out, key, kid, algorithms, wrong);
	}
	return 0; /* of another kind */
}

static int parse_set(struct jwks *out, struct slice text, unsigned algorithms, const char **wrong)
{
	json_t *root = json_loadb(text.p, text.len, JSON_REJECT_DUPLICATES, NULL), *keys, *jwk;
	size_t i;
	int rc = 0;

	if (root == NULL) {
		*wrong = "is no JSON";
		return -1;
	}
	keys = json_object_get(root, "keys");
	if (keys == NULL) {
		rc = parse_jwk(out, root, algorithms, wrong);
	} else {
		json_array_foreach(keys, i, jwk)
		{
			if (rc == 0)
				rc = parse_jwk(out, jwk, algorithms, wrong);
		}
	}
	json_decref(root);
	return rc;
}

/* ---------------------------------------------------------------- any of them */

static struct slice without_line_end(struct slice s)
{
	if (s.len > 0 && s.p[s.len - 1] == '\n')
		s.len--;
	if (s.len > 0 && s.p[s.len - 1] == '\r')
		s.len--;
	return s;
}

int jwks_parse(struct jwks *out, struct slice text, unsigned algorithms, const char **wrong)
{
	size_t start = 0;
	int rc;

	*out = (struct jwks){0};
	*wrong = NULL;
	while (start < text.len && (text.p[start] == ' ' || (text.p[start] >= '\t' && text.p[start] <= '\r')))
		start++;
	if (text.len > INT32_MAX) {
		*wrong = "is too large";
		rc = -1;
	} else if (start < text.len && text.p[start] == '{') {
		rc = parse_set(out, text, algorithms, wrong);
	} else if (memmem(text.p, text.len, "-----BEGIN", 10) != NULL) {
		rc = parse_pem(out, text, algorithms, wrong);
	} else if (algorithms & CFG_ALG_HS256) {
		rc = add_secret(out, without_line_end(text), NULL, wrong);
	} else {
		*wrong = "is neither PEM nor a key set";
		rc = -1;
	}
	if (rc == 0 && out->n == 0) {
		*wrong = "has no key for any of the algorithms";
		rc = -1;
	}
	if (rc == -1)
		jwks_free(out);
	return rc;
}

void jwks_free(struct jwks *k)
{
	for (size_t i = 0; i < k->n; i++) {
		free(k->keys[i].kid);
		EVP_PKEY_free(k->keys[i].key);
		if (k->keys[i].secret.p != NULL)
			OPENSSL_cleanse((void *)(uintptr_t)k->keys[i].secret.p, k->keys[i].secret.len);
		free((void *)(uintptr_t)k->keys[i].secret.p);
	}
	free(k->keys);
	*k = (struct jwks){0};
}
