/* template.h - a text with placeholders: greetings, answers, Redis keys. Any process; pure but for malloc.
 *
 *   {name}       the variable's text, escaped for the inside of a JSON string (in a key: as it is)
 *   {name:int}   the variable as an integer in canonical form; null if it is none
 *   {msg.k}      a coerced field of the client's message: true, false, an integer; a string is escaped like {name}
 *   {info.k}     a top-level member of what the authorization named "info": as {name}
 *   {value.k}    a top-level member of the Redis value of a retained message: as {name}
 *   {value.k:raw}  {info.k:raw}  {msg.k:raw}   its JSON text as it stands; :int as above
 *
 * A placeholder is '{', a lower-case letter, letters, digits, '_' and '.', perhaps ":int" or ":raw", '}'. Any other
 * brace is text: JSON's own always are, for what follows them is a quote, a blank or a brace.
 *
 * Variables: room, user, conn, session, ns, node; time (unix seconds), monotonic (seconds with six decimals).
 * An absent variable or member is the empty text, null with :int or :raw. So is JSON's null, and a string that is half a
 * surrogate pair. Of repeated members the last counts; one that is an array or an object has its JSON text.
 */
#ifndef RC_TEMPLATE_H
#define RC_TEMPLATE_H

#include "common/base.h"
#include "common/buf.h"

struct template;

enum template_var {
	TEMPLATE_ROOM,
	TEMPLATE_USER,
	TEMPLATE_CONN,
	TEMPLATE_SESSION,
	TEMPLATE_NS,
	TEMPLATE_NODE,
	TEMPLATE_TIME,
	TEMPLATE_MONOTONIC,
	TEMPLATE_MSG,   /* by number in `fields` */
	TEMPLATE_INFO,  /* by name */
	TEMPLATE_VALUE, /* by name */
};

/* What the text may name besides the variables. */
struct template_scope {
	const char *const *fields; /* names behind "msg." */
	size_t n_fields;
	bool has_info, has_value;
};

/* Take `text` apart (copied). NULL with *wrong = what is the matter, in English, a constant. */
struct template *template_compile(const char *text, const struct template_scope *scope,
				  const char **wrong) MUST_CHECK;
void template_free(struct template *t); /* NULL is fine */

/* The text it was made of, for printing the configuration. */
const char *template_text(const struct template *t);

/* Does it name this variable? */
bool template_uses(const struct template *t, enum template_var var) MUST_CHECK;

/* Values of the moment; slices are borrowed. p == NULL: absent. */
struct template_values {
	struct slice room, user, conn, session, ns, node;
	uint64_t time_s, monotonic_us;
	const struct slice *msg;  /* by field number: raw JSON text (true, 12, "a string"); NULL: none */
	struct slice info, value; /* raw JSON objects */
};

enum template_as { TEMPLATE_AS_JSON, TEMPLATE_AS_PLAIN }; /* escape variables, or not (Redis keys) */

/* Append the text with its placeholders filled in. 0, or -1 (ENOMEM) with `out` unchanged. */
int template_render(const struct template *t, const struct template_values *v, enum template_as as,
		    struct buf *out) MUST_CHECK;

/* Append a Redis key (or another name): TEMPLATE_AS_PLAIN, and every placeholder has to have something to say. Returns 1; 0 if
 * one was absent, empty or null, or if the text has a NUL, with `out` unchanged; -1 (ENOMEM). */
int template_render_name(const struct template *t, const struct template_values *v, struct buf *out) MUST_CHECK;

#endif
