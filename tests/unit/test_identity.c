/* LINK: worker/identity.c */
/* What a hook's answer says, and what is no answer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "worker/identity.h"

static struct slice text(const char *s)
{
	return (struct slice){s, strlen(s)};
}

static void is_text(struct slice s, const char *want)
{
	assert_int_equal(s.len, strlen(want));
	assert_memory_equal(s.p, want, s.len);
}

static void read_ok(struct identity *id, const char *body)
{
	const char *wrong;

	if (identity_read_hook(id, text(body), false, &wrong) == -1)
		fail_msg("%s: %s", body, wrong);
	assert_null(wrong);
}

static void a_whole_answer(void **state)
{
	struct identity id;

	(void)state;
	read_ok(&id, " {\"allow\":true,\"user\":\"j\\u00f6rg\",\"info\":{\"tag\":\"x\\n\",\"n\":[1,2]},"
		     "\"groups\":[\"a\","
		     "\"creator:12:admins\"],\"session\":\"s1\",\"expires_at\":1900000000,\"frames\":[{"
		     "\"type\":\"x\", "
		     "\"n\":1.50},[1 ,2],\"pl\\u0061in\"],\"other\":{\"allow\":false}} ");
	assert_true(id.is_allowed);
	is_text(id.user, "j\xc3\xb6rg");
	is_text(id.info, "{\"tag\":\"x\\n\",\"n\":[1,2]}"); /* its bytes as they stood */
	is_text(id.session, "s1");
	assert_int_equal(id.expires_at, 1900000000);
	assert_int_equal(id.n_groups, 2);
	is_text(id.groups[0], "a");
	is_text(id.groups[1], "creator:12:admins");
	assert_int_equal(id.n_frames, 3);
	is_text(id.frames[0], "{\"type\":\"x\", \"n\":1.50}");
	is_text(id.frames[1], "[1 ,2]");
	is_text(id.frames[2], "plain");
	identity_drop_frames(&id);
	assert_int_equal(id.n_frames, 0);
	identity_clear(&id);
}

static void users_are_strings_and_integers_alike(void **state)
{
	static const struct {
		const char *json, *user;
	} cases[] = {
		{"7", "7"},
		{"\"7\"", "7"},
		{"-0", "0"},
		{"-12", "-12"},
		{"123456789012345678901234567890", "123456789012345678901234567890"},
		{"\"007\"", "007"},
		{"null", ""},
		{"\"\"", ""},
	};
	char body[200];
	struct identity id;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(body, sizeof(body), "{\"allow\":true,\"user\":%s}", cases[i].json);
		read_ok(&id, body);
		is_text(id.user, cases[i].user);
		identity_clear(&id);
	}
}

static void a_refusal(void **state)
{
	struct identity id;
	char body[600];

	(void)state;
	read_ok(&id, "{\"allow\":false}");
	assert_false(id.is_allowed);
	assert_int_equal(id.status, 403);
	assert_int_equal(id.code, 1008);
	assert_int_equal(id.reason.len, 0);
	identity_clear(&id);
	read_ok(&id, "{\"allow\":false,\"status\":401,\"code\":4001,\"reason\":\"log "
		     "in\",\"user\":[],\"frames\":7}");
	assert_int_equal(id.status, 401);
	assert_int_equal(id.code, 4001);
	is_text(id.reason, "log in");
	assert_int_equal(id.n_frames, 0);
	identity_clear(&id);
	/* 61 times two bytes and one more: a character is not cut in two. */
	snprintf(body, sizeof(body), "{\"allow\":false,\"reason\":\"%0124d\"}", 0);
	for (char *p = strchr(body, '0'); *p == '0'; p += 2)
		memcpy(p, "\xc3\xa4", 2);
	read_ok(&id, body);
	assert_int_equal(id.reason.len, 122);
	identity_clear(&id);
}

static void the_last_of_repeated_members_counts(void **state)
{
	struct identity id;

	(void)state;
	read_ok(&id, "{\"allow\":true,\"user\":1,\"allow\":false,\"user\":2}");
	assert_false(id.is_allowed);
	identity_clear(&id);
	read_ok(&id, "{\"\\u0061llow\":true,\"user\":1,\"user\":2}");
	is_text(id.user, "2");
	identity_clear(&id);
}

static void what_is_no_answer(void **state)
{
	static const char *const cases[] = {
		"",
		"null",
		"true",
		"[]",
		"{}",
		"<html>",
		"{\"allow\":true",
		"{\"allow\":true}x",
		"{\"allow\":1}",
		"{\"allow\":\"true\"}",
		"{\"allow\":null}",
		"{\"allow\":NaN}",
		"{\"allow\":true,\"user\":7.5}",
		"{\"allow\":true,\"user\":1e3}",
		"{\"allow\":true,\"user\":true}",
		"{\"allow\":true,\"user\":[7]}",
		"{\"allow\":true,\"user\":{}}",
		"{\"allow\":true,\"user\":\"\\ud800\"}",
		"{\"allow\":true,\"user\":\"\xff\"}",
		"{\"allow\":true,\"info\":[]}",
		"{\"allow\":true,\"info\":\"x\"}",
		"{\"allow\":true,\"session\":7}",
		"{\"allow\":true,\"expires_at\":\"soon\"}",
		"{\"allow\":true,\"expires_at\":-1}",
		"{\"allow\":true,\"expires_at\":0}",
		"{\"allow\":true,\"expires_at\":1e9}",
		"{\"allow\":true,\"expires_at\":99999999999999999999999}",
		"{\"allow\":true,\"groups\":\"a\"}",
		"{\"allow\":true,\"groups\":[1]}",
		"{\"allow\":true,\"groups\":[\"\"]}",
		"{\"allow\":true,\"frames\":{}}",
		"{\"allow\":true,\"frames\":[1]}",
		"{\"allow\":true,\"frames\":[null]}",
		"{\"allow\":false,\"status\":200}",
		"{\"allow\":false,\"status\":\"403\"}",
		"{\"allow\":false,\"code\":1000}",
		"{\"allow\":false,\"code\":1005}",
		"{\"allow\":false,\"code\":5000}",
		"{\"allow\":false,\"reason\":7}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct identity id;
		const char *wrong = NULL;

		if (identity_read_hook(&id, text(cases[i]), false, &wrong) == 0)
			fail_msg("taken: %s", cases[i]);
		assert_non_null(wrong);
		assert_null(id.text.p);
		assert_null(id.frame_text.p);
	}
}

static void bounds(void **state)
{
	struct buf body = {0};
	struct identity id;
	const char *wrong;

	(void)state;
	for (unsigned n = IDENTITY_GROUPS_MAX; n <= IDENTITY_GROUPS_MAX + 1; n++) {
		body.len = 0;
		assert_int_equal(buf_puts(&body, "{\"allow\":true,\"groups\":[\"g\""), 0);
		for (unsigned i = 1; i < n; i++)
			assert_int_equal(buf_puts(&body, ",\"g\""), 0);
		assert_int_equal(buf_puts(&body, "]}"), 0);
		assert_int_equal(identity_read_hook(&id, (struct slice){body.p, body.len}, false, &wrong),
				 n > IDENTITY_GROUPS_MAX ? -1 : 0);
		identity_clear(&id);
	}
	for (unsigned n = IDENTITY_USER_MAX; n <= IDENTITY_USER_MAX + 1; n++) {
		for (int quoted = 0; quoted < 2; quoted++) {
			body.len = 0;
			assert_int_equal(buf_printf(&body, "{\"allow\":true,\"user\":%s%0*d%s}",
						    quoted ? "\"" : "1", (int)(quoted ? n : n - 1), 0,
						    quoted ? "\"" : ""),
					 0);
			assert_int_equal(
				identity_read_hook(&id, (struct slice){body.p, body.len}, false, &wrong),
				n > IDENTITY_USER_MAX ? -1 : 0);
			identity_clear(&id);
		}
	}
	buf_free(&body);
}

static void an_answer_to_a_message(void **state)
{
	struct identity id;
	const char *wrong;

	(void)state;
	assert_int_equal(identity_read_hook(&id, text("{\"frames\":[\"pong\"]}"), true, &wrong), 0);
	assert_int_equal(id.n_frames, 1);
	identity_clear(&id);
	assert_int_equal(identity_read_hook(&id, text("{}"), true, &wrong), 0);
	identity_clear(&id);
	/* What is for connections alone is not looked at. */
	assert_int_equal(
		identity_read_hook(&id, text("{\"allow\":7,\"user\":[],\"frames\":[]}"), true, &wrong), 0);
	assert_int_equal(id.user.len, 0);
	identity_clear(&id);
	assert_int_equal(identity_read_hook(&id, text("{\"frames\":7}"), true, &wrong), -1);
	assert_int_equal(identity_read_hook(&id, text("\"pong\""), true, &wrong), -1);
}

static void copies_stand_alone(void **state)
{
	struct identity id, *copy;

	(void)state;
	read_ok(&id,
		"{\"allow\":true,\"user\":7,\"info\":{\"a\":1},\"groups\":[\"a\",\"b\"],\"frames\":[\"x\"]}");
	copy = identity_clone(&id);
	assert_non_null(copy);
	identity_clear(&id);
	assert_true(copy->is_allowed);
	is_text(copy->user, "7");
	is_text(copy->info, "{\"a\":1}");
	is_text(copy->groups[0], "a");
	is_text(copy->groups[1], "b");
	assert_int_equal(copy->n_frames, 0);
	assert_int_equal(identity_add_group(copy, text("c")), 0);
	assert_int_equal(identity_add_group(copy, text("b")), 0);
	assert_int_equal(copy->n_groups, 3);
	is_text(copy->groups[2], "c");
	is_text(copy->user, "7");
	identity_remove_group(copy, text("a"));
	identity_remove_group(copy, text("nowhere"));
	assert_int_equal(copy->n_groups, 2);
	is_text(copy->groups[0], "c");
	is_text(copy->groups[1], "b");
	identity_free(copy);
	copy = identity_of_user(text("9"));
	assert_int_equal(identity_add_group(copy, text("g")), 0);
	is_text(copy->user, "9");
	is_text(copy->groups[0], "g");
	identity_free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_answer),
		cmocka_unit_test(users_are_strings_and_integers_alike),
		cmocka_unit_test(a_refusal),
		cmocka_unit_test(the_last_of_repeated_members_counts),
		cmocka_unit_test(what_is_no_answer),
		cmocka_unit_test(bounds),
		cmocka_unit_test(an_answer_to_a_message),
		cmocka_unit_test(copies_stand_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
