/* LINK: worker/auth_jwt.c worker/identity.c
 * COVER: worker/auth_jwt.c */
/* fuzz_jwt - tokens: as they come from outside, and with claims that got past the signature, for the key
 * signs whatever the fuzzer says.
 *
 * Signatures of the other algorithms are the fuzzer's guess, and must not be good.
 *
 * Must hold beyond not crashing: an unsigned token is never good; a good one has a user, all of it in the
 * identity's own text, within its bounds. */
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/utf8.h"
#include "worker/auth_jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char secret[] = "a secret of the fuzzer, 32 bytes at least", sub[] = "sub", groups[] = "groups";

static void must(bool holds)
{
	if (!holds)
		abort();
}

static size_t encode(const void *p, size_t len, char *dst)
{
	size_t n = base64_encode((struct slice){p, len}, dst);

	while (n > 0 && dst[n - 1] == '=')
		n--;
	for (size_t i = 0; i < n; i++)
		dst[i] = dst[i] == '+' ? '-' : dst[i] == '/' ? '_' : dst[i];
	return n;
}

static void check_slice(const struct identity *id, struct slice s, size_t max)
{
	if (s.len == 0)
		return;
	must(s.len <= max && s.p >= id->text.p && s.p + s.len <= id->text.p + id->text.len);
	must(utf8_is_valid(s.p, s.len));
}

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do. The volatile pointer keeps the compiler from dropping it. */
static void plant(struct slice session)
{
	char *volatile copy = malloc(8);

	if (copy != NULL && session.len > 0)
		memcpy(copy, session.p, session.len);
	free(copy);
}
#endif

static void check_identity(const struct identity *id)
{
	must(id->is_allowed && id->user.len > 0 && id->n_groups <= IDENTITY_GROUPS_MAX && id->n_frames == 0);
	check_slice(id, id->user, IDENTITY_USER_MAX);
	check_slice(id, id->session, IDENTITY_USER_MAX);
	check_slice(id, id->info, JWT_MAX);
	for (unsigned i = 0; i < id->n_groups; i++) {
		must(id->groups[i].len > 0);
		check_slice(id, id->groups[i], IDENTITY_USER_MAX);
	}
#ifdef FUZZ_PLANT_BUG
	plant(id->session);
#endif
}

static void check(const struct cfg_auth *a, const struct jwks *keys, struct slice token, bool may_be_good)
{
	struct identity *who;
	const char *wrong;
	enum jwt_result r = jwt_check(a, keys, token, 1700000000, &who, &wrong);

	must((r == JWT_GOOD) == (who != NULL) && (r != JWT_GOOD || may_be_good));
	if (who != NULL)
		check_identity(who);
	identity_free(who);
}

/* header.claims.signature into dst; claims and signature from the fuzzer, or an HMAC. */
static struct slice make(char *dst, const char *header, struct slice claims, const struct slice *signature)
{
	unsigned char mac[64];
	unsigned mac_len;
	size_t n = encode(header, strlen(header), dst);

	dst[n++] = '.';
	n += encode(claims.p, claims.len, dst + n);
	must(HMAC(EVP_sha256(), secret, sizeof(secret) - 1, (unsigned char *)dst, n, mac, &mac_len) != NULL);
	dst[n++] = '.';
	n += signature == NULL ? encode(mac, mac_len, dst + n)
			       : encode(signature->p, signature->len, dst + n);
	return (struct slice){dst, n};
}

/* Of RFC 7515, A.3, and RFC 8037, A.2. */
static const char public_keys[] =
	"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
	"\"y\":\"x_FEzRu9m3"
	"6HLN_tue659LNpXW6pCyStikYjKIWI5a0\"},{\"kty\":\"OKP\",\"kid\":\"d\",\"crv\":\"Ed25519\",\"x\":"
	"\"11qYAYKxCrfVS_7TyWQHOg7h"
	"cvPapiMlrwIaaPcHURo\"},{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_"
	"wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw"
	"-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-"
	"bSf63kpaSHSXndS5z5"
	"rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-"
	"DWNmoudF8NAco9"
	"_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"}]}";

static void check_guesses(char *scratch, struct slice claims)
{
	static const char *const headers[] = {"{\"alg\":\"ES256\"}", "{\"alg\":\"RS256\"}",
					      "{\"alg\":\"EdDSA\"}", "{\"alg\":\"EdDSA\",\"kid\":\"x\"}",
					      "{\"alg\":\"EdDSA\",\"crit\":[]}"};
	const unsigned all = CFG_ALG_RS256 | CFG_ALG_ES256 | CFG_ALG_EDDSA;
	const struct cfg_auth a = {.type = CFG_AUTH_JWT, .algorithms = all, .user_claim = sub};
	static struct jwks keys;
	const struct slice signature = {claims.p, u64_min(claims.len, 64)};
	const char *wrong;

	if (keys.n == 0)
		must(jwks_parse(&keys, (struct slice){public_keys, sizeof(public_keys) - 1}, all, &wrong) ==
		     0);
	check(&a, &keys, make(scratch, headers[claims.len % ARRAY_LEN(headers)], claims, &signature), false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char token[JWT_MAX * 2 + 256], audience[] = "feeds", issuer[] = "app";
	static struct jwks keys;
	const struct slice text = {(const char *)data, size};
	const struct cfg_auth plain = {.type = CFG_AUTH_JWT,
				       .algorithms = CFG_ALG_HS256,
				       .user_claim = sub,
				       .groups_claim = groups,
				       .leeway = 5000};
	struct cfg_auth strict = plain;
	const char *wrong;

	strict.audience = audience;
	strict.issuer = issuer;
	if (keys.n == 0)
		must(jwks_parse(&keys, (struct slice){secret, sizeof(secret) - 1}, CFG_ALG_HS256, &wrong) ==
		     0);
	check(&plain, &keys, text, false);
	if (size > JWT_MAX)
		return 0;
	check(&plain, &keys, make(token, "{\"alg\":\"HS256\"}", text, NULL), true);
	check(&strict, &keys, make(token, "{\"alg\":\"HS256\"}", text, NULL), true);
	check_guesses(token, text);
	return 0;
}
