/* LINK:
 * COVER: common/envelope.c */
/* fuzz_envelope - published JSON objects. The first byte chooses the route key.
 *
 * Must hold beyond not crashing: the verdict agrees with the validator; what clients get is an object without
 * server keys, and stays the same when it is read again; ids are distinct, and as many as were counted; a
 * signed text gives the payload of the unsigned one, and its origin. */
#include <stdlib.h>
#include <string.h>

#include "common/envelope.h"
#include "common/json.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static bool is_same(struct slice a, struct slice b)
{
	return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}

static void check_verdict(struct slice text, enum envelope_verdict v)
{
	enum json_type type = JSON_TYPE_NULL;
	bool is_valid = json_validate(text, &type);

	must((v == ENVELOPE_BAD_UTF8) == (text.len > 0 && !utf8_is_valid(text.p, text.len)));
	must((v == ENVELOPE_BAD_JSON || v == ENVELOPE_BAD_UTF8) == !is_valid);
	must((v == ENVELOPE_NOT_OBJECT) == (is_valid && type != JSON_TYPE_OBJECT));
	must(v != ENVELOPE_NO_MEMORY);
}

static void check_ids(const struct envelope *e)
{
	uint32_t n = 0;

	for (size_t at = 0; at < e->ids.len; n++) {
		struct slice id = envelope_id(e, &at);

		must(id.len > 0 && id.len <= ENVELOPE_USER_MAX && utf8_is_valid(id.p, id.len));
		for (size_t other = at, k = n + 1; n < 64 && other < e->ids.len; k++) {
			bool is_same_kind = (k < e->n_users) == (n < e->n_users);

			must(!is_same(id, envelope_id(e, &other)) || !is_same_kind);
		}
	}
	must(n == e->n_users + e->n_groups);
	must(n == 0 || e->is_targeted);
}

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do. The volatile pointer keeps the compiler from dropping it. */
static void plant(const struct envelope *e)
{
	char *volatile copy = malloc(4);

	if (copy != NULL && e->n_users > 0)
		memcpy(copy, e->ids.p + 2, e->ids.len - 2);
	free(copy);
}
#endif

/* `e`: what was read of `text`. */
static void check_payload(const struct envelope *e, struct slice text)
{
	struct envelope again = {0};
	struct buf b = {0};

	must(envelope_read(&again, e->payload, NULL) == ENVELOPE_OK);
	must(is_same(again.payload, e->payload) && again.payload.p == e->payload.p);
	must(!again.is_targeted && !again.has_own_keys);

	must(envelope_sign(&b, text, 7, 8, true) == 0 && b.len <= text.len + ENVELOPE_SIGN_MAX);
	must(envelope_read(&again, (struct slice){b.p, b.len}, NULL) == ENVELOPE_OK);
	must(again.has_origin && again.is_asking && again.origin == 7 && again.id == 8);
	must(is_same(again.payload, e->payload));
	must(again.n_users == e->n_users && again.n_groups == e->n_groups && again.skipped == e->skipped);

	b.len = 0;
	must(envelope_unsign(&b, text) == 0);
	must(envelope_read(&again, (struct slice){b.p, b.len}, NULL) == ENVELOPE_OK);
	must(!again.has_own_keys && again.is_targeted == e->is_targeted);
	must(e->has_own_keys || is_same((struct slice){b.p, b.len}, text));
	envelope_free(&again);
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const keys[] = {NULL, "k", "_k", "track_id"};
	struct envelope e = {.seed = 3};
	enum envelope_verdict v;
	struct slice text;

	if (size == 0)
		return 0;
	text = (struct slice){(const char *)data + 1, size - 1};
	v = envelope_read(&e, text, keys[data[0] % ARRAY_LEN(keys)]);
	if (v != ENVELOPE_TOO_LARGE)
		check_verdict(text, v);
	if (v == ENVELOPE_OK) {
		must(!e.has_room || e.room_len < sizeof(e.room));
		check_ids(&e);
		check_payload(&e, text);
#ifdef FUZZ_PLANT_BUG
		plant(&e);
#endif
	}
	envelope_free(&e);
	return 0;
}
