/* auth_jwt.h - is this token good, and whose is it? JSON Web Signature in compact form (RFC 7515, 7519) with
 * HS256, RS256, ES256 and EdDSA with Ed25519 (RFC 7518, 8037). Worker; pure but for malloc.
 *
 * A key decides its algorithm (jwks.h); a token is checked only against keys of the algorithm that it names,
 * and only if the configuration lists that. "none", encrypted tokens and tokens with "crit" are refused.
 */
#ifndef RC_AUTH_JWT_H
#define RC_AUTH_JWT_H

#include "common/config.h"
#include "common/jwks.h"
#include "worker/identity.h"

#define JWT_MAX 8192u /* bytes of a token */

enum jwt_result {
	JWT_GOOD,
	JWT_BAD,     /* no token, or not signed with a key of ours, or not for us */
	JWT_EXPIRED, /* signed, but its time is over or has not come */
	JWT_NO_MEMORY,
};

/* Judge `token`. JWT_GOOD: *who is the identity (the caller's): the user is claim user_claim, which must be
 * there; groups are claim groups_claim; info is claim "info" if that is an object; session is claim "sid"; it
 * expires with "exp" (and leeway). Else *wrong is a constant for the log. */
enum jwt_result jwt_check(const struct cfg_auth *auth, const struct jwks *keys, struct slice token,
			  uint64_t now_s, struct identity **who, const char **wrong) MUST_CHECK;

#endif
