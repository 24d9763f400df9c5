#include "worker/auth_jwt.h"

#include <jansson.h>
#include <math.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/json.h"

#define TRIES_MAX  8  /* keys that one token is checked against: a verification costs up to 0.1 ms */
#define P256_BYTES 32 /* of r and of s */

/* The parts of a compact token. */
struct parts {
	struct slice signed_text; /* header "." payload, as they stand */
	json_t *header, *claims;
	struct buf header_text, claims_text;
	unsigned char signature[BASE64URL_DECODED_MAX(JWT_MAX)];
	size_t signature_len;
};

/* ---------------------------------------------------------------- taking it apart */

/* An object, and its text. */
static json_t *decode_json(struct slice encoded, struct buf *text)
{
	json_t *root = NULL;
	ssize_t n;

	if (buf_reserve(text, BASE64URL_DECODED_MAX(encoded.len)) == -1)
		return NULL;
	n = base64url_decode(encoded, text->p);
	if (n <= 0)
		return NULL;
	text->len = (size_t)n;
	root = json_loadb(text->p, text->len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(root))
		return root;
	json_decref(root);
	return NULL;
}

static bool take_apart(struct slice token, struct parts *p)
{
	const char *dot, *dot2, *end = token.p + token.len;
	ssize_t n;

	if (token.len == 0 || token.len > JWT_MAX || (dot = memchr(token.p, '.', token.len)) == NULL ||
	    (dot2 = memchr(dot + 1, '.', (size_t)(end - dot - 1))) == NULL)
		return false;
	n = base64url_decode((struct slice){dot2 + 1, (size_t)(end - dot2 - 1)}, (char *)p->signature);
	if (n <= 0)
		return false;
	p->signature_len = (size_t)n;
	p->signed_text = (struct slice){token.p, (size_t)(dot2 - token.p)};
	p->header = decode_json((struct slice){token.p, (size_t)(dot - token.p)}, &p->header_text);
	if (p->header != NULL)
		p->claims = decode_json((struct slice){dot + 1, (size_t)(dot2 - dot - 1)}, &p->claims_text);
	return p->claims != NULL;
}

/* 0: none that is known. */
static unsigned algorithm_named(const json_t *header)
{
	static const struct {
		const char *name;
		enum cfg_algorithm algorithm;
	} known[] = {{"HS256", CFG_ALG_HS256},
		     {"RS256", CFG_ALG_RS256},
		     {"ES256", CFG_ALG_ES256},
		     {"EdDSA", CFG_ALG_EDDSA}};
	const char *name = json_string_value(json_object_get(header, "alg"));

	for (size_t i = 0; name != NULL && i < ARRAY_LEN(known); i++) {
		if (strcmp(name, known[i].name) == 0)
			return known[i].algorithm;
	}
	return 0;
}

/* ---------------------------------------------------------------- signatures */

static bool verify_hmac(const struct jwk *k, const struct parts *p)
{
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned len;

	return HMAC(EVP_sha256(), k->secret.p, (int)k->secret.len, (const unsigned char *)p->signed_text.p,
		    p->signed_text.len, mac, &len) != NULL &&
	       p->signature_len == len && CRYPTO_memcmp(mac, p->signature, len) == 0;
}

static bool verify(EVP_PKEY *key, const EVP_MD *md, const unsigned char *signature, size_t len,
		   struct slice text)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool is_good = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) == 1 &&
		       EVP_DigestVerify(ctx, signature, len, (const unsigned char *)text.p, text.len) == 1;

	EVP_MD_CTX_free(ctx);
	return is_good;
}

/* r and s stand there as 32 bytes each (RFC 7518, 3.4); OpenSSL wants them as ASN.1. */
static bool verify_ecdsa(const struct jwk *k, const struct parts *p)
{
	ECDSA_SIG *sig;
	BIGNUM *r, *s;
	unsigned char *der = NULL;
	int len;
	bool is_good;

	if (p->signature_len != 2 * (size_t)P256_BYTES || (sig = ECDSA_SIG_new()) == NULL)
		return false;
	r = BN_bin2bn(p->signature, P256_BYTES, NULL);
	s = BN_bin2bn(p->signature + P256_BYTES, P256_BYTES, NULL);
	if (r == NULL || s == NULL || ECDSA_SIG_set0(sig, r, s) != 1) {
		BN_free(r);
		BN_free(s);
		ECDSA_SIG_free(sig);
		return false;
	}
	len = i2d_ECDSA_SIG(sig, &der);
	is_good = len > 0 && verify(k->key, EVP_sha256(), der, (size_t)len, p->signed_text);
	OPENSSL_free(der);
	ECDSA_SIG_free(sig);
	return is_good;
}

static bool verify_with(const struct jwk *k, const struct parts *p)
{
	switch (k->algorithm) {
	case CFG_ALG_HS256:
		return verify_hmac(k, p);
	case CFG_ALG_RS256:
		return verify(k->key, EVP_sha256(), p->signature, p->signature_len, p->signed_text);
	case CFG_ALG_ES256:
		return verify_ecdsa(k, p);
	case CFG_ALG_EDDSA:
		return verify(k->key, NULL, p->signature, p->signature_len, p->signed_text);
	}
	return false;
}

/* May key `k` have signed a token that names key `kid`? Keys without a name (PEM) may have signed anything.
 */
static bool is_candidate(const struct jwk *k, unsigned algorithm, const char *kid)
{
	return k->algorithm == algorithm && (kid == NULL || k->kid == NULL || strcmp(k->kid, kid) == 0);
}

static bool is_signed(const struct jwks *keys, const struct parts *p, unsigned algorithm)
{
	const char *kid = json_string_value(json_object_get(p->header, "kid"));
	unsigned tries = 0;

	for (size_t i = 0; i < keys->n && tries < TRIES_MAX; i++) {
		if (!is_candidate(&keys->keys[i], algorithm, kid))
			continue;
		tries++;
		if (verify_with(&keys->keys[i], p))
			return true;
	}
	return false;
}

/* ---------------------------------------------------------------- claims */

static bool has_text(const json_t *value, const char *want)
{
	const char *s = json_string_value(value);

	return s != NULL && strcmp(s, want) == 0;
}

/* "aud" is a string or an array of them. */
static bool is_for(const json_t *claims, const char *audience)
{
	json_t *aud = json_object_get(claims, "aud"), *one;
	size_t i;

	if (has_text(aud, audience))
		return true;
	json_array_foreach(aud, i, one)
	{
		if (has_text(one, audience))
			return true;
	}
	return false;
}

/* A date in seconds, fractions allowed. Absent: `absent`. False: it is none. */
static bool get_date(const json_t *claims, const char *name, double absent, double *out)
{
	const json_t *v = json_object_get(claims, name);

	*out = v == NULL ? absent : json_number_value(v);
	return (v == NULL || json_is_number(v)) && isfinite(*out);
}

static enum jwt_result check_claims(const struct cfg_auth *a, const json_t *claims, uint64_t now_s,
				    uint64_t *expires_at, const char **wrong)
{
	double exp, nbf, leeway = (double)a->leeway / 1000, now = (double)now_s;

	*wrong = "date";
	if (!get_date(claims, "exp", 0x1p53, &exp) || !get_date(claims, "nbf", 0, &nbf))
		return JWT_BAD;
	*wrong = "issuer";
	if (a->issuer != NULL && *a->issuer != '\0' && !has_text(json_object_get(claims, "iss"), a->issuer))
		return JWT_BAD;
	*wrong = "audience";
	if (a->audience != NULL && *a->audience != '\0' && !is_for(claims, a->audience))
		return JWT_BAD;
	*wrong = "expired";
	if (now >= exp + leeway)
		return JWT_EXPIRED;
	*wrong = "not_yet";
	if (now < nbf - leeway)
		return JWT_EXPIRED;
	*expires_at = exp >= 0x1p53 ? 0 : (uint64_t)ceil(exp + leeway);
	return JWT_GOOD;
}

/* ---------------------------------------------------------------- identity */

/* Append to the text, which does not move: it was reserved whole. */
static bool put(struct identity *id, const char *s, size_t len, struct slice *out)
{
	char *at = id->text.p + id->text.len;

	if (len > id->text.cap - id->text.len)
		return false;
	memcpy(at, s, len);
	id->text.len += len;
	*out = (struct slice){at, len};
	return true;
}

static bool put_user(struct identity *id, const json_t *v)
{
	char digits[24];
	int n;

	if (json_is_string(v))
		return json_string_length(v) > 0 && json_string_length(v) <= IDENTITY_USER_MAX &&
		       put(id, json_string_value(v), json_string_length(v), &id->user);
	if (!json_is_integer(v))
		return false;
	n = snprintf(digits, sizeof(digits), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	return n > 0 && put(id, digits, (size_t)n, &id->user);
}

static bool put_groups(struct identity *id, json_t *groups)
{
	json_t *g;
	size_t i, n = json_array_size(groups);

	if (groups == NULL || json_is_null(groups) || (json_is_array(groups) && n == 0))
		return true;
	if (!json_is_array(groups) || n > IDENTITY_GROUPS_MAX ||
	    (id->groups = calloc(n, sizeof(*id->groups))) == NULL)
		return false;
	json_array_foreach(groups, i, g)
	{
		if (json_string_length(g) == 0 || json_string_length(g) > IDENTITY_USER_MAX ||
		    !put(id, json_string_value(g), json_string_length(g), &id->groups[i]))
			return false;
		id->n_groups++;
	}
	return true;
}

/* Claim "info", if it is an object, exactly as it was written. */
static bool put_info(struct identity *id, struct slice claims)
{
	struct json_iter it;
	struct json_member m;
	int rc;

	if (json_object_begin(&it, claims) == -1)
		return false;
	while ((rc = json_object_next(&it, &m)) == 1) {
		if (json_is(m.key, "info") && m.type == JSON_TYPE_OBJECT &&
		    !put(id, m.value.p, m.value.len, &id->info))
			return false;
	}
	return rc == 0;
}

/* Groups that are none refuse the token, for they open doors; an info or a session that is none is not there.
 */
static bool fill(struct identity *id, const struct cfg_auth *a, const struct parts *p)
{
	const json_t *sid = json_object_get(p->claims, "sid");

	/* No string is longer than its JSON, and an integer has at most 20 digits. */
	if (buf_reserve(&id->text, p->claims_text.len + 24) == -1 ||
	    !put_user(id, json_object_get(p->claims, a->user_claim)) ||
	    (a->groups_claim != NULL && !put_groups(id, json_object_get(p->claims, a->groups_claim))) ||
	    !put_info(id, (struct slice){p->claims_text.p, p->claims_text.len}))
		return false;
	return json_string_length(sid) == 0 || json_string_length(sid) > IDENTITY_USER_MAX ||
	       put(id, json_string_value(sid), json_string_length(sid), &id->session);
}

static enum jwt_result identify(const struct cfg_auth *a, const struct parts *p, uint64_t expires_at,
				struct identity **who, const char **wrong)
{
	struct identity *id = calloc(1, sizeof(*id));

	*wrong = "no_memory";
	if (id == NULL)
		return JWT_NO_MEMORY;
	*wrong = "claims";
	if (!fill(id, a, p)) {
		identity_free(id);
		return JWT_BAD;
	}
	id->is_allowed = true;
	id->expires_at = expires_at;
	*who = id;
	return JWT_GOOD;
}

/* ---------------------------------------------------------------- all of it */

static enum jwt_result check(const struct cfg_auth *a, const struct jwks *keys, const struct parts *p,
			     uint64_t now_s, struct identity **who, const char **wrong)
{
	unsigned algorithm = algorithm_named(p->header);
	enum jwt_result r;
	uint64_t expires_at;

	*wrong = "algorithm";
	if ((algorithm & a->algorithms) == 0)
		return JWT_BAD;
	*wrong = "critical"; /* RFC 7515, 4.1.11: extensions that must be understood */
	if (json_object_get(p->header, "crit") != NULL)
		return JWT_BAD;
	*wrong = "signature";
	if (!is_signed(keys, p, algorithm))
		return JWT_BAD;
	r = check_claims(a, p->claims, now_s, &expires_at, wrong);
	return r == JWT_GOOD ? identify(a, p, expires_at, who, wrong) : r;
}

enum jwt_result jwt_check(const struct cfg_auth *auth, const struct jwks *keys, struct slice token,
			  uint64_t now_s, struct identity **who, const char **wrong)
{
	struct parts p = {.header = NULL};
	enum jwt_result r = JWT_BAD;

	*who = NULL;
	*wrong = "malformed";
	if (take_apart(token, &p))
		r = check(auth, keys, &p, now_s, who, wrong);
	json_decref(p.header);
	json_decref(p.claims);
	buf_free(&p.header_text);
	buf_free(&p.claims_text);
	return r;
}
