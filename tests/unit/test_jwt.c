/* LINK: worker/auth_jwt.c worker/identity.c */
/* Tokens and keys: the examples of RFC 7515 and RFC 8037, and tokens signed here with fresh keys. */
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base64.h"
#include "worker/auth_jwt.h"

#define NOW UINT64_C(1700000000)

static char sub[] = "sub", groups[] = "groups";

static struct cfg_auth config(unsigned algorithms)
{
	return (struct cfg_auth){
		.type = CFG_AUTH_JWT, .algorithms = algorithms, .user_claim = sub, .groups_claim = groups};
}

static struct slice text(const char *s)
{
	return (struct slice){s, strlen(s)};
}

static void is_text(struct slice s, const char *want)
{
	assert_int_equal(s.len, strlen(want));
	assert_memory_equal(s.p, want, s.len);
}

static struct jwks parse(const char *s, unsigned algorithms)
{
	struct jwks k;
	const char *wrong;

	if (jwks_parse(&k, text(s), algorithms, &wrong) == -1)
		fail_msg("%s", wrong);
	return k;
}

/* The verdict, and why; nobody is let in without it. */
static enum jwt_result judge_at(const struct cfg_auth *a, const struct jwks *k, const char *token,
				uint64_t now, const char **wrong)
{
	struct identity *who;
	enum jwt_result r = jwt_check(a, k, text(token), now, &who, wrong);

	assert_int_equal(who != NULL, r == JWT_GOOD);
	identity_free(who);
	return r;
}

static enum jwt_result judge(const struct cfg_auth *a, const struct jwks *k, const char *token)
{
	const char *wrong;

	return judge_at(a, k, token, NOW, &wrong);
}

static void is_wrong(const struct cfg_auth *a, const struct jwks *k, const char *token, const char *want)
{
	const char *wrong;

	assert_int_not_equal(judge_at(a, k, token, NOW, &wrong), JWT_GOOD);
	assert_string_equal(wrong, want);
}

/* ---- the RFCs' examples. Their claims name no "sub", and they expired in 2011. */

#define RFC_PAYLOAD                                                                                          \
	"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

static void examples_of_the_rfc(void **state)
{
	static const struct {
		unsigned algorithm;
		const char *jwk, *token;
	} cases[] = {
		{CFG_ALG_HS256, /* A.1 */
		 "{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-"
		 "1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}",
		 "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." RFC_PAYLOAD
		 ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"},
		{CFG_ALG_RS256, /* A.2 */
		 "{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-"
		 "Vaw-4qPCJrcS2mJPM"
		 "EzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-"
		 "bSf63kpaSHSXndS5z5rexMdbBY"
		 "UsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-"
		 "DWNmoudF8NAco9_h9"
		 "iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"}",
		 "eyJhbGciOiJSUzI1NiJ9." RFC_PAYLOAD
		 ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh"
		 "-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
		 "nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBM"
		 "Hlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-"
		 "eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6L"
		 "bgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
		{CFG_ALG_ES256, /* A.3 */
		 "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
		 "\"y\":\"x_FEzRu9m36HLN"
		 "_tue659LNpXW6pCyStikYjKIWI5a0\"}",
		 "eyJhbGciOiJFUzI1NiJ9." RFC_PAYLOAD
		 ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTU"
		 "JqPP3-Kg6NU1Q"},
	};
	const char *wrong;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cfg_auth a = config(cases[i].algorithm);
		struct jwks k = parse(cases[i].jwk, cases[i].algorithm);
		char *bad = strdup(cases[i].token);

		assert_int_equal(judge_at(&a, &k, cases[i].token, NOW, &wrong), JWT_EXPIRED);
		a.user_claim = (char *)(uintptr_t) "iss";
		assert_int_equal(judge_at(&a, &k, cases[i].token, 1300819379, &wrong), JWT_GOOD);
		assert_int_equal(judge_at(&a, &k, cases[i].token, 1300819380, &wrong), JWT_EXPIRED);
		a.leeway = 1000;
		assert_int_equal(judge_at(&a, &k, cases[i].token, 1300819380, &wrong), JWT_GOOD);
		/* Each character of the signature counts, and each of what is signed. */
		for (size_t at = 0; at < strlen(bad); at++) {
			char was = bad[at];

			bad[at] = was == 'A' ? 'B' : 'A';
			assert_int_not_equal(judge_at(&a, &k, bad, 1300819379, &wrong), JWT_GOOD);
			bad[at] = was;
		}
		for (size_t len = strlen(bad); len-- > 0;) {
			struct identity *who;

			assert_int_not_equal(
				jwt_check(&a, &k, (struct slice){bad, len}, 1300819379, &who, &wrong),
				JWT_GOOD);
		}
		free(bad);
		jwks_free(&k);
	}
}

/* ---- tokens of our own */

static char secret[] = "0123456789abcdef0123456789abcdef";

static size_t encode(const void *p, size_t len, char *dst)
{
	size_t n = base64_encode((struct slice){p, len}, dst);

	while (n > 0 && dst[n - 1] == '=')
		n--;
	for (size_t i = 0; i < n; i++)
		dst[i] = dst[i] == '+' ? '-' : dst[i] == '/' ? '_' : dst[i];
	dst[n] = '\0';
	return n;
}

static void der_to_raw(const unsigned char *der, size_t len, unsigned char raw[64])
{
	ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &der, (long)len);

	assert_non_null(s);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, 32), 32);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + 32, 32), 32);
	ECDSA_SIG_free(s);
}

/* key == NULL: HS256 with `hmac_key`. The result is good until the next call. */
static const char *sign_with(EVP_PKEY *key, struct slice hmac_key, const char *header, const char *claims)
{
	static char token[16384];
	unsigned char sig[1024], raw[64];
	size_t n = encode(header, strlen(header), token), len = sizeof(sig);
	unsigned mac_len;

	token[n++] = '.';
	n += encode(claims, strlen(claims), token + n);
	if (key == NULL) {
		assert_non_null(HMAC(EVP_sha256(), hmac_key.p, (int)hmac_key.len, (unsigned char *)token, n,
				     sig, &mac_len));
		len = mac_len;
	} else {
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		const EVP_MD *md = EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();

		assert_int_equal(EVP_DigestSignInit(ctx, NULL, md, NULL, key), 1);
		assert_int_equal(EVP_DigestSign(ctx, sig, &len, (unsigned char *)token, n), 1);
		EVP_MD_CTX_free(ctx);
		if (EVP_PKEY_is_a(key, "EC")) {
			der_to_raw(sig, len, raw);
			memcpy(sig, raw, sizeof(raw));
			len = sizeof(raw);
		}
	}
	token[n++] = '.';
	encode(sig, len, token + n);
	return token;
}

static const char *sign(const char *header, const char *claims)
{
	return sign_with(NULL, text(secret), header, claims);
}

static char *pem_of(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *p, *copy;
	long n;

	assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
	n = BIO_get_mem_data(bio, &p);
	copy = calloc(1, (size_t)n + 1); /* what the BIO holds has no end of its own */
	assert_non_null(copy);
	memcpy(copy, p, (size_t)n);
	BIO_free(bio);
	return copy;
}

/* Appendix A.1 and A.2: what the private key there signs is good for the public one. */
static void the_pair_of_rfc_8037(void **state)
{
	struct cfg_auth a = config(CFG_ALG_EDDSA);
	struct jwks k = parse(
		"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
		CFG_ALG_EDDSA);
	char d[64];
	EVP_PKEY *key;

	(void)state;
	assert_int_equal(base64url_decode(text("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"), d), 32);
	key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, (unsigned char *)d, 32);
	assert_non_null(key);
	assert_int_equal(judge(&a, &k, sign_with(key, text(""), "{\"alg\":\"EdDSA\"}", "{\"sub\":\"u\"}")),
			 JWT_GOOD);
	EVP_PKEY_free(key);
	jwks_free(&k);
}

static void claims_become_an_identity(void **state)
{
	struct cfg_auth a = config(CFG_ALG_HS256);
	struct jwks k = parse(secret, CFG_ALG_HS256);
	struct identity *who;
	const char *wrong;

	(void)state;
	a.leeway = 5000;
	assert_int_equal(jwt_check(&a, &k,
				   text(sign("{\"alg\":\"HS256\",\"typ\":\"JWT\"}",
					     "{\"sub\":\"j\\u00f6rg\",\"groups\":[\"a\",\"b\"],\"info\":{"
					     "\"x\": 1.10},\"sid\":\"s1\","
					     "\"exp\":1700000100.5,\"nbf\":1699999999}")),
				   NOW, &who, &wrong),
			 JWT_GOOD);
	is_text(who->user, "j\xc3\xb6rg");
	is_text(who->groups[1], "b");
	is_text(who->info, "{\"x\": 1.10}"); /* as it was written */
	is_text(who->session, "s1");
	assert_int_equal(who->expires_at, 1700000106);
	assert_true(who->is_allowed);
	identity_free(who);
	assert_int_equal(
		jwt_check(&a, &k, text(sign("{\"alg\":\"HS256\"}", "{\"sub\":7}")), NOW, &who, &wrong),
		JWT_GOOD);
	is_text(who->user, "7");
	assert_int_equal(who->expires_at, 0);
	assert_null(who->info.p);
	identity_free(who);
	jwks_free(&k);
}

static void claims_that_refuse(void **state)
{
	static const struct {
		const char *claims, *wrong;
	} cases[] = {
		{"{}", "claims"},
		{"{\"sub\":\"\"}", "claims"},
		{"{\"sub\":7.5}", "claims"},
		{"{\"sub\":true}", "claims"},
		{"{\"sub\":\"u\",\"groups\":\"g\"}", "claims"},
		{"{\"sub\":\"u\",\"groups\":[7]}", "claims"},
		{"{\"sub\":\"u\",\"groups\":[\"\"]}", "claims"},
		{"{\"sub\":\"u\",\"exp\":\"1800000000\"}", "date"},
		{"{\"sub\":\"u\",\"exp\":null}", "date"},
		{"{\"sub\":\"u\",\"exp\":1700000000}", "expired"},
		{"{\"sub\":\"u\",\"exp\":-1}", "expired"},
		{"{\"sub\":\"u\",\"nbf\":1700000001}", "not_yet"},
		{"{\"sub\":\"u\",\"sub\":\"v\"}", "malformed"},
		{"[\"sub\"]", "malformed"},
		{"{\"sub\":\"u\"", "malformed"},
		{"", "malformed"},
	};
	struct cfg_auth a = config(CFG_ALG_HS256);
	struct jwks k = parse(secret, CFG_ALG_HS256);

	(void)state;
	assert_int_equal(judge(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\"}")), JWT_GOOD);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		is_wrong(&a, &k, sign("{\"alg\":\"HS256\"}", cases[i].claims), cases[i].wrong);
	jwks_free(&k);
}

static void audience_and_issuer(void **state)
{
	struct cfg_auth a = config(CFG_ALG_HS256);
	struct jwks k = parse(secret, CFG_ALG_HS256);

	(void)state;
	a.audience = (char *)(uintptr_t) "feeds";
	is_wrong(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\"}"), "audience");
	is_wrong(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\",\"aud\":\"others\"}"), "audience");
	is_wrong(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\",\"aud\":[\"others\",7]}"), "audience");
	assert_int_equal(judge(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\",\"aud\":\"feeds\"}")),
			 JWT_GOOD);
	assert_int_equal(
		judge(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\",\"aud\":[\"x\",\"feeds\"]}")),
		JWT_GOOD);
	a.audience = NULL;
	a.issuer = (char *)(uintptr_t) "app";
	is_wrong(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\",\"iss\":[\"app\"]}"), "issuer");
	assert_int_equal(judge(&a, &k, sign("{\"alg\":\"HS256\"}", "{\"sub\":\"u\",\"iss\":\"app\"}")),
			 JWT_GOOD);
	jwks_free(&k);
}

static void headers_that_refuse(void **state)
{
	static const struct {
		const char *header, *wrong;
	} cases[] = {
		{"{\"alg\":\"none\"}", "algorithm"},
		{"{\"alg\":\"None\"}", "algorithm"},
		{"{\"alg\":\"hs256\"}", "algorithm"},
		{"{\"alg\":\"HS512\"}", "algorithm"},
		{"{\"alg\":\"RS256\"}", "algorithm"},
		{"{\"alg\":[\"HS256\"]}", "algorithm"},
		{"{}", "algorithm"},
		{"{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", "critical"},
		{"{\"alg\":\"HS256\",\"alg\":\"HS256\"}", "malformed"},
	};
	struct cfg_auth a = config(CFG_ALG_HS256);
	struct jwks k = parse(secret, CFG_ALG_HS256);
	char unsigned_token[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		is_wrong(&a, &k, sign(cases[i].header, "{\"sub\":\"u\"}"), cases[i].wrong);
	snprintf(unsigned_token, sizeof(unsigned_token), "%s", sign("{\"alg\":\"none\"}", "{\"sub\":\"u\"}"));
	strrchr(unsigned_token, '.')[1] = '\0';
	is_wrong(&a, &k, unsigned_token, "malformed");
	is_wrong(&a, &k, "", "malformed");
	is_wrong(&a, &k, "..", "malformed");
	is_wrong(&a, &k, "a.b.c.d.e", "malformed");
	jwks_free(&k);
}

static void every_kind_of_key(void **state)
{
	static const struct {
		unsigned algorithm;
		const char *header;
	} kinds[] = {{CFG_ALG_RS256, "{\"alg\":\"RS256\"}"},
		     {CFG_ALG_ES256, "{\"alg\":\"ES256\"}"},
		     {CFG_ALG_EDDSA, "{\"alg\":\"EdDSA\"}"}};
	EVP_PKEY *keys[] = {EVP_RSA_gen(2048), EVP_EC_gen("P-256"), EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
	struct buf all = {0};
	unsigned algorithms = CFG_ALG_RS256 | CFG_ALG_ES256 | CFG_ALG_EDDSA;
	struct cfg_auth any = config(algorithms);
	struct jwks set;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		char *pem = pem_of(keys[i]);
		struct cfg_auth a = config(kinds[i].algorithm);
		struct jwks k = parse(pem, kinds[i].algorithm), none;
		const char *wrong;

		assert_int_equal(
			judge(&a, &k, sign_with(keys[i], text(""), kinds[i].header, "{\"sub\":\"u\"}")),
			JWT_GOOD);
		/* The public key as a secret: what confuses those who believe the token's "alg". */
		is_wrong(&a, &k, sign_with(NULL, text(pem), "{\"alg\":\"HS256\"}", "{\"sub\":\"u\"}"),
			 "algorithm");
		is_wrong(&any, &k, sign_with(NULL, text(pem), kinds[i].header, "{\"sub\":\"u\"}"),
			 "signature");
		assert_int_equal(jwks_parse(&none, text(pem), CFG_ALG_HS256, &wrong), -1);
		for (size_t j = 0; j < ARRAY_LEN(keys); j++) {
			if (j != i)
				is_wrong(&any, &k,
					 sign_with(keys[j], text(""), kinds[i].header, "{\"sub\":\"u\"}"),
					 "signature");
		}
		assert_int_equal(buf_puts(&all, pem), 0);
		jwks_free(&k);
		free(pem);
	}
	assert_int_equal(buf_put(&all, "", 1), 0);
	set = parse(all.p, algorithms);
	assert_int_equal(set.n, 3);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		assert_int_equal(
			judge(&any, &set, sign_with(keys[i], text(""), kinds[i].header, "{\"sub\":\"u\"}")),
			JWT_GOOD);
		EVP_PKEY_free(keys[i]);
	}
	jwks_free(&set);
	buf_free(&all);
}

static void key_names(void **state)
{
	static const char set[] =
		"{\"keys\":[{\"kty\":\"oct\",\"kid\":\"old\",\"k\":"
		"\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"},"
		"{\"kty\":\"oct\",\"kid\":\"new\",\"k\":\"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\"},"
		"{\"kty\":\"oct\",\"kid\":\"enc\",\"use\":\"enc\",\"k\":"
		"\"QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI\"},"
		"{\"kty\":\"oct\",\"kid\":\"512\",\"alg\":\"HS512\",\"k\":"
		"\"QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI\"},"
		"{\"kty\":\"oct\",\"kid\":\"ops\",\"key_ops\":[\"sign\"],\"k\":"
		"\"QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI\"},"
		"{\"kty\":\"EC\",\"crv\":\"P-521\"},{\"kty\":\"unheard\"},7]}";
	struct cfg_auth a = config(CFG_ALG_HS256);
	struct jwks k = parse(set, CFG_ALG_HS256);
	const char *b = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB", *claims = "{\"sub\":\"u\"}";

	(void)state;
	assert_int_equal(k.n, 2);
	assert_int_equal(judge(&a, &k, sign("{\"alg\":\"HS256\",\"kid\":\"old\"}", claims)), JWT_GOOD);
	assert_int_equal(judge(&a, &k, sign("{\"alg\":\"HS256\"}", claims)), JWT_GOOD);
	is_wrong(&a, &k, sign("{\"alg\":\"HS256\",\"kid\":\"new\"}", claims), "signature");
	is_wrong(&a, &k, sign("{\"alg\":\"HS256\",\"kid\":\"\"}", claims), "signature");
	is_wrong(&a, &k, sign_with(NULL, text(b), "{\"alg\":\"HS256\",\"kid\":\"enc\"}", claims),
		 "signature");
	is_wrong(&a, &k, sign_with(NULL, text(b), "{\"alg\":\"HS256\"}", claims), "signature");
	jwks_free(&k);
}

static void keys_of_no_use(void **state)
{
	EVP_PKEY *small = EVP_RSA_gen(1024), *p384 = EVP_EC_gen("P-384");
	char *small_pem = pem_of(small), *p384_pem = pem_of(p384);
	const struct {
		const char *text;
		unsigned algorithms;
		const char *wrong;
	} cases[] = {
		{"", CFG_ALG_HS256, "a secret has less than 32 bytes"},
		{"0123456789abcdef0123456789abcde\n", CFG_ALG_HS256, "a secret has less than 32 bytes"},
		{secret, CFG_ALG_RS256, "is neither PEM nor a key set"},
		{"{\"keys\":[]}", CFG_ALG_RS256, "has no key for any of the algorithms"},
		{"{\"keys\":[}", CFG_ALG_RS256, "is no JSON"},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"\",\"e\":\"AQAB\"}]}", CFG_ALG_RS256,
		 "a key of the set is not what it says it is"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
		 "\"y\":\"x_FEzRu9m36HLN"
		 "_tue659LNpXW6pCyStikYjKIWI5a1\"}",
		 CFG_ALG_ES256, "a key of the set is not what it says it is"}, /* not on the curve */
		{"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"}", CFG_ALG_EDDSA,
		 "a key of the set is not what it says it is"},
		{"-----BEGIN PUBLIC KEY-----\nMAAA\n-----END PUBLIC KEY-----\n", CFG_ALG_RS256,
		 "a block of PEM is no public key and no certificate"},
		{"-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n", CFG_ALG_RS256,
		 "a private key stands there: public ones belong here"},
		{small_pem, CFG_ALG_RS256, "an RSA key has less than 2048 bits"},
		{p384_pem, CFG_ALG_ES256, "has no key for any of the algorithms"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct jwks k;
		const char *wrong = NULL;

		assert_int_equal(jwks_parse(&k, text(cases[i].text), cases[i].algorithms, &wrong), -1);
		assert_string_equal(wrong, cases[i].wrong);
		assert_null(k.keys);
	}
	free(small_pem);
	free(p384_pem);
	EVP_PKEY_free(small);
	EVP_PKEY_free(p384);
}

/* A file that was cut, or edited by hand: half of its keys would be half of the users, in silence. */
static void a_damaged_block_behind_a_good_one(void **state)
{
	EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
	char *pem = pem_of(key), *second = pem_of(other);
	const char *wrong = NULL;
	struct buf all = {0};
	struct jwks k;

	(void)state;
	assert_int_equal(buf_puts(&all, "a comment\n"), 0);
	assert_int_equal(buf_puts(&all, pem), 0);
	assert_int_equal(buf_puts(&all, "another\n"), 0);
	assert_int_equal(jwks_parse(&k, (struct slice){all.p, all.len}, CFG_ALG_ES256, &wrong), 0);
	assert_int_equal(k.n, 1);
	jwks_free(&k);
	assert_int_equal(buf_put(&all, second, strlen(second) - 30), 0);
	assert_int_equal(jwks_parse(&k, (struct slice){all.p, all.len}, CFG_ALG_ES256, &wrong), -1);
	assert_string_equal(wrong, "a block of PEM is damaged");
	all.len -= strlen(second) - 30;
	second[40] = '*';
	assert_int_equal(buf_puts(&all, second), 0);
	assert_int_equal(jwks_parse(&k, (struct slice){all.p, all.len}, CFG_ALG_ES256, &wrong), -1);
	assert_string_equal(wrong, "a block of PEM is damaged");
	buf_free(&all);
	free(pem);
	free(second);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other);
}

static void tokens_have_a_size(void **state)
{
	struct cfg_auth a = config(CFG_ALG_HS256);
	struct jwks k = parse(secret, CFG_ALG_HS256);
	char claims[7000];

	(void)state;
	snprintf(claims, sizeof(claims), "{\"sub\":\"u\",\"x\":\"%06000d\"}", 0);
	assert_int_equal(judge(&a, &k, sign("{\"alg\":\"HS256\"}", claims)), JWT_GOOD);
	snprintf(claims, sizeof(claims), "{\"sub\":\"u\",\"x\":\"%06500d\"}", 0);
	is_wrong(&a, &k, sign("{\"alg\":\"HS256\"}", claims), "malformed");
	jwks_free(&k);
}

static void base64url(void **state)
{
	static const struct {
		const char *text, *bytes; /* NULL: refused */
	} cases[] = {{"", ""},           {"Zg", "f"},         {"Zm8", "fo"},  {"Zm9v", "foo"},
		     {"Zm9vYg", "foob"}, {"_-8", "\xff\xef"}, {"Z", NULL},    {"Zg==", NULL},
		     {"Zh", NULL},       {"Zm9", NULL},       {"/-8", NULL},  {"+-8", NULL},
		     {"Zg=", NULL},      {"Z g", NULL},       {"Zm9vZ", NULL}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char out[64];
		ssize_t n = base64url_decode(text(cases[i].text), out);

		if (cases[i].bytes == NULL) {
			assert_int_equal(n, -1);
			continue;
		}
		assert_int_equal(n, strlen(cases[i].bytes));
		assert_memory_equal(out, cases[i].bytes, (size_t)n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(examples_of_the_rfc),
		cmocka_unit_test(the_pair_of_rfc_8037),
		cmocka_unit_test(claims_become_an_identity),
		cmocka_unit_test(claims_that_refuse),
		cmocka_unit_test(audience_and_issuer),
		cmocka_unit_test(headers_that_refuse),
		cmocka_unit_test(every_kind_of_key),
		cmocka_unit_test(key_names),
		cmocka_unit_test(keys_of_no_use),
		cmocka_unit_test(a_damaged_block_behind_a_good_one),
		cmocka_unit_test(tokens_have_a_size),
		cmocka_unit_test(base64url),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
