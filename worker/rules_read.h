/* rules_read.h - a client's message against its namespace's rules: which one takes it, and what it may say in
 * a frame.
 *
 * Nothing of a message gets into a frame but its coerced fields:
 *
 * - bool: true and false as they are; a number that is not 0, a string or container that is not empty: true;
 *   else false;
 * - int: an integer, or a string that holds one (common/integer.h), of RULES_INT_MAX bytes at most; else 0;
 * - string: a string's first RULES_STRING_MAX bytes, cut at a character; an integer of RULES_INT_MAX bytes at
 *   most as its text; else "".
 *
 * Worker; pure but for its buffers, which are kept for the next message.
 */
#ifndef RC_RULES_READ_H
#define RC_RULES_READ_H

#include "common/base.h"
#include "common/buf.h"
#include "common/config.h"

#define RULES_STRING_MAX 256u
#define RULES_INT_MAX    20u

enum rules_found {
	RULES_RULE,  /* `rule` takes it */
	RULES_OTHER, /* a JSON object that no rule takes */
	RULES_BAD,   /* no JSON object (strict, common/json.h), and no text that a rule takes */
	RULES_NO_MEMORY,
};

struct rules_read {
	const struct cfg_rule *rule;
	size_t index;      /* of the rule in the namespace */
	struct slice *msg; /* its coerced fields, by number: raw JSON, in canonical form */
	struct buf text;   /* all of them, each with a comma behind it */
	size_t cap;        /* of msg */
	struct buf scratch;
};

void rules_read_free(struct rules_read *r);

/* Read text message `message` (valid UTF-8 or not). `r` is all zero at first, or of an earlier call; rule,
 * index, msg and text mean something after RULES_RULE alone, until the next call. A text rule is matched byte
 * for byte, before anything else; a type rule with the top-level string "type", of repeated ones the last. So
 * of repeated fields. */
enum rules_found rules_read(struct rules_read *r, const struct cfg_namespace *ns,
			    struct slice message) MUST_CHECK;

#endif
