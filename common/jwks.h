/* jwks.h - keys that sign tokens, as an operator has them: PEM, a JSON Web Key Set (RFC 7517), or a shared
 * secret. Any process: the master refuses a configuration whose keys are of no use, workers verify with them.
 *
 * Each key is for one algorithm, which it decides itself: an RSA key for RS256, P-256 for ES256, Ed25519 for
 * EdDSA, a secret for HS256. A token's own word for its algorithm can therefore not turn a public key into a
 * secret.
 */
#ifndef RC_JWKS_H
#define RC_JWKS_H

#include <openssl/types.h>

#include "common/base.h"
#include "common/config.h"

#define JWKS_MAX        64u  /* keys of a set */
#define JWKS_SECRET_MIN 32u  /* bytes (RFC 7518, 3.2) */
#define JWKS_RSA_MIN    2048 /* bits (RFC 7518, 3.3) */

struct jwk {
	enum cfg_algorithm algorithm;
	char *kid;           /* NULL: none */
	EVP_PKEY *key;       /* NULL for HS256 */
	struct slice secret; /* HS256; owned */
};

struct jwks {
	struct jwk *keys;
	size_t n;
};

/* The keys in `text` that are for one of `algorithms`; others of a set are passed over. A text that begins
 * with '{' is a set (or one key), one with "-----BEGIN" in it is PEM (public keys and certificates); anything
 * else is a secret, without the end of line behind it, if HS256 is among the algorithms. 0, or -1 with
 * *wrong, a constant: nothing of use, a private key, a key that is too short, not what it says it is, no
 * memory. */
int jwks_parse(struct jwks *out, struct slice text, unsigned algorithms, const char **wrong) MUST_CHECK;
void jwks_free(struct jwks *k);

/* Behind the last PEM_read_bio...() that returned nothing: has it stopped because nothing more begins, and
 * not because what begins is damaged? Of OpenSSL's errors it needs those since ERR_clear_error() before the
 * first read. */
bool jwks_is_end_of_pem(void);

#endif
