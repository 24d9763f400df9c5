/* LINK: common/template.c common/integer.c */
/* template: what is a placeholder and what is text, each kind of value, escaping, and what is refused.
 * integer: the canonical text of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/integer.h"
#include "common/json.h"
#include "common/template.h"

static const char *const fields[] = {"is_typing", "n", "s", "n.x"};
static const struct template_scope all = {
	.fields = fields, .n_fields = 4, .has_info = true, .has_value = true};

static struct slice str(const char *s)
{
	return (struct slice){s, strlen(s)};
}

/* A client's values of the moment. */
static struct template_values some(void)
{
	static struct slice msg[4];

	msg[0] = str("true");
	msg[1] = str("-12");
	msg[2] = str("\"a\\u0022\\n\\u00e9\\\\\"");
	msg[3] = str("\"007\"");
	return (struct template_values){
		.room = str("ro\"om"),
		.user = str("007"),
		.conn = str("c-1"),
		.ns = str("feed"),
		.node = str("n1"),
		.time_s = 1700000000,
		.monotonic_us = 12000034,
		.msg = msg,
		.info = str("{\"username\":\"J\\u00f6\\\"e\",\"age\":7,\"x\":null,\"o\":{\"a\":[1, "
			    "2]},\"b\":true,"
			    "\"dup\":1,\"d\\u0075p\":2,\"half\":\"\\ud800\",\"f\":1.5,\"nl\":\"\\n\"}"),
		.value = str("{\"id\":\"b1\",\"message\":\"hi \\\"you\\\"\",\"created_by\":12}"),
	};
}

/* The text made of a template; valid until the next call. */
static const char *rendered_as(const char *text, const struct template_values *v, enum template_as as)
{
	static struct buf out;
	const char *wrong;
	struct template *t = template_compile(text, &all, &wrong);

	if (t == NULL)
		return wrong;
	assert_null(wrong);
	assert_string_equal(template_text(t), text);
	buf_free(&out);
	assert_int_equal(buf_puts(&out, "|"), 0);
	assert_int_equal(template_render(t, v, as, &out), 0);
	assert_int_equal(buf_put(&out, "", 1), 0);
	template_free(t);
	return out.p + 1;
}

static const char *rendered(const char *text)
{
	struct template_values v = some();

	return rendered_as(text, &v, TEMPLATE_AS_JSON);
}

static void braces_of_json_are_text(void **state)
{
	static const char *const texts[] = {
		"",           "pong",
		"{}",         "{{",
		"}",          "{\"type\":\"pong\"}",
		"{ room }",   "{Room}",
		"{room",      "{room }",
		"{room:}",    "{room:intx}",
		"{room:Int}", "{1}",
		"{_}",        "{\"a\":{\"b\":[{}]}}",
		"{room:int",  "{r\xc3\xb6om}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		assert_string_equal(rendered(texts[i]), texts[i]);
}

static void variables_are_escaped(void **state)
{
	struct template_values v = some();

	(void)state;
	assert_string_equal(rendered("{\"r\":\"{room}\",\"u\":{user:int},\"c\":\"{conn}{conn}\"}"),
			    "{\"r\":\"ro\\\"om\",\"u\":7,\"c\":\"c-1c-1\"}");
	assert_string_equal(rendered("{{room}}"), "{ro\\\"om}");
	assert_string_equal(rendered("{ns}:{node}:{time}:{time:int}:{monotonic}"),
			    "feed:n1:1700000000:1700000000:12.000034");
	assert_string_equal(rendered_as("k:{room}:{user}", &v, TEMPLATE_AS_PLAIN), "k:ro\"om:007");
}

static void what_is_absent_is_empty_or_null(void **state)
{
	struct template_values v = {.time_s = 0};

	(void)state;
	assert_string_equal(
		rendered_as("<{room}{user}{session}{msg.s}{info.a}{value.b}>", &v, TEMPLATE_AS_JSON), "<>");
	assert_string_equal(
		rendered_as("{user:int} {msg.n:int} {info.a:raw} {info.a:int} {value.b:raw} {msg.s:raw}", &v,
			    TEMPLATE_AS_JSON),
		"null null null null null null");
	assert_string_equal(rendered_as("{time} {monotonic}", &v, TEMPLATE_AS_JSON), "0 0.000000");
	assert_string_equal(rendered("<{info.x}|{info.X}|{info.half}|{info.x:raw}|{info.x:int}|{room:int}>"),
			    "<|||null|null|null>");
}

static void fields_of_the_message(void **state)
{
	struct template_values v = some();

	(void)state;
	assert_string_equal(
		rendered("{\"is_typing\":{msg.is_typing},\"n\":{msg.n},\"s\":\"{msg.s}\",\"r\":{msg.s:raw}}"),
		"{\"is_typing\":true,\"n\":-12,\"s\":\"a\\\"\\n\xc3\xa9\\\\\",\"r\":"
		"\"a\\u0022\\n\\u00e9\\\\\"}");
	assert_string_equal(rendered("{msg.n:int} {msg.n.x:int} {msg.s:int} {msg.is_typing:int}"),
			    "-12 7 null null");
	assert_string_equal(rendered_as("broadcast:{msg.s}:ack", &v, TEMPLATE_AS_PLAIN),
			    "broadcast:a\"\n\xc3\xa9\\:ack");
}

static void members_of_info_and_value(void **state)
{
	struct template_values v = some();

	(void)state;
	assert_string_equal(
		rendered("\"{info.username}\" {info.age} {info.age:int} {info.b} {info.dup} {info.f:int} "
			 "{info.f} {info.f:raw}"),
		"\"J\xc3\xb6\\\"e\" 7 7 true 2 null 1.5 1.5");
	assert_string_equal(rendered("\"{info.o}\" {info.o:raw} {info.username:raw}"),
			    "\"{\\\"a\\\":[1, 2]}\" {\"a\":[1, 2]} \"J\\u00f6\\\"e\"");
	assert_string_equal(
		rendered("{\"id\":\"{value.id}\",\"m\":\"{value.message}\",\"by\":{value.created_by:raw}}"),
		"{\"id\":\"b1\",\"m\":\"hi \\\"you\\\"\",\"by\":12}");
	assert_string_equal(rendered_as("{info.nl}", &v, TEMPLATE_AS_PLAIN), "\n");
	v.info = str("[1]");
	v.value = str("{\"id\":1,");
	assert_string_equal(rendered_as("<{info.a}{value.id}>{value.id:raw}", &v, TEMPLATE_AS_JSON),
			    "<>null");
}

/* Whatever the values hold, a JSON template gives JSON. */
static void output_is_json(void **state)
{
	struct template_values v = some();
	const char *out;

	(void)state;
	v.room = (struct slice){"a\0\"\\\n\x1f\xff\xc3", 8};
	out = rendered_as(
		"{\"a\":\"{room}\",\"b\":{room:int},\"c\":{msg.s:raw},\"d\":\"{msg.s}\",\"e\":\"{info.o}\"}",
		&v, TEMPLATE_AS_JSON);
	assert_true(json_validate(str(out), NULL));
	assert_string_equal(out, "{\"a\":\"a\\u0000\\\"\\\\\\n\\u001f\xef\xbf\xbd\xef\xbf\xbd\",\"b\":null,"
				 "\"c\":\"a\\u0022\\n\\u00e9\\\\\",\"d\":\"a\\\"\\n\xc3\xa9\\\\\",\"e\":\"{"
				 "\\\"a\\\":[1, 2]}\"}");
}

static void what_is_refused(void **state)
{
	static const struct {
		const char *text, *wrong;
	} t[] = {
		{"{nope}", "names no variable"},
		{"{rooms}", "names no variable"},
		{"a{room}b{msg}", "names no variable"},
		{"{msg.other}", "not coerced"},
		{"{msg.}", "not coerced"},
		{"{info.}", "name is missing"},
		{"{room:raw}", ":raw is for members"},
		{"{monotonic:int}", "no integer"},
		{"\xff", "not UTF-8"},
		{"{info.a234567890123456789012345678901234567890123456789012345678901234}", "at most 63"},
	};
	static const struct template_scope none = {0};
	const char *wrong;
	struct template *ok;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		assert_null(template_compile(t[i].text, &all, &wrong));
		assert_non_null(strstr(wrong, t[i].wrong));
	}
	assert_null(template_compile("{info.a}", &none, &wrong));
	assert_non_null(strstr(wrong, "nobody is authorized"));
	assert_null(template_compile("{value.a}", NULL, &wrong));
	assert_non_null(strstr(wrong, "no Redis value"));
	assert_null(template_compile("{msg.n}", &none, &wrong));
	ok = template_compile("{info.a23456789012345678901234567890123456789012345678901234567890123}", &all,
			      &wrong);
	assert_non_null(ok);
	template_free(ok);
	template_free(NULL);
}

static void says_what_it_uses(void **state)
{
	const char *wrong;
	struct template *t = template_compile("{room} {info.a} {msg.n} {\"user\"}", &all, &wrong);

	(void)state;
	assert_non_null(t);
	assert_true(template_uses(t, TEMPLATE_ROOM));
	assert_true(template_uses(t, TEMPLATE_INFO));
	assert_true(template_uses(t, TEMPLATE_MSG));
	assert_false(template_uses(t, TEMPLATE_USER));
	assert_false(template_uses(t, TEMPLATE_VALUE));
	template_free(t);
}

/* ---- integer ---- */

static void integers_have_one_text(void **state)
{
	static const struct {
		const char *text, *canonical;
	} t[] = {
		{"7", "7"},
		{"007", "7"},
		{"+7", "7"},
		{"-7", "-7"},
		{"-007", "-7"},
		{"0", "0"},
		{"000", "0"},
		{"-0", "0"},
		{"+00", "0"},
		{" 7\t\r\n", "7"},
		{"  -5 ", "-5"},
		{"12345678901234567890123", "12345678901234567890123"},
		{"", ""},
		{" ", ""},
		{"+", ""},
		{"-", ""},
		{"--7", ""},
		{"+-7", ""},
		{"- 7", ""},
		{"7 8", ""},
		{"7.0", ""},
		{"1e3", ""},
		{"0x7", ""},
		{"7a", ""},
		{"\xc2\xa0"
		 "7",
		 ""},
	};
	char out[32], in[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		size_t n = integer_canonical(str(t[i].text), out, sizeof(out));

		assert_int_equal(n, strlen(t[i].canonical));
		assert_memory_equal(out, t[i].canonical, n);
	}
	assert_int_equal(integer_canonical(str("-12"), out, 3), 3);
	assert_int_equal(integer_canonical(str("-12"), out, 2), 0);
	assert_int_equal(integer_canonical(str("-0012"), out, 3), 3);
	memcpy(in, " -0042 ", 7); /* in place */
	assert_int_equal(integer_canonical((struct slice){in, 7}, in, 7), 3);
	assert_memory_equal(in, "-42", 3);
	assert_int_equal(integer_canonical((struct slice){"7\0", 2}, out, sizeof(out)), 0);
}

/* A name has no holes: what a placeholder does not say cannot be guessed by who looks for it. */
static void names_have_no_holes(void **state)
{
	static const char *const keys[] = {"id", "n"};
	const struct template_scope scope = {
		.fields = keys, .n_fields = 2, .has_info = true, .has_value = true};
	static const struct {
		const char *text, *want; /* NULL: none */
	} t[] = {
		{"seen", "seen"},
		{"seen:{msg.id}:{user}", "seen:a\"b:7"},
		{"{user}:{value.id}", "7:12"},
		{"x:{msg.n}", NULL},     /* absent in this message */
		{"x:{msg.n:int}", NULL}, /* null */
		{"x:{session}", NULL},
		{"x:{value.none}:y", NULL},
		{"x:{info.a}", NULL},
		{"x:{value.nul}", NULL}, /* would be two keys */
	};
	const struct slice msg[] = {str("\"a\\\"b\""), {NULL, 0}};
	struct template_values v = {
		.user = str("7"), .msg = msg, .value = str("{\"id\":12,\"nul\":\"a\\u0000b\"}")};
	struct buf out = {0};
	const char *wrong;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct template *name = template_compile(t[i].text, &scope, &wrong);

		assert_non_null(name);
		out.len = 0;
		assert_int_equal(buf_puts(&out, "before "), 0);
		assert_int_equal(template_render_name(name, &v, &out), t[i].want != NULL);
		assert_int_equal(out.len, 7 + (t[i].want == NULL ? 0 : strlen(t[i].want)));
		if (t[i].want != NULL)
			assert_memory_equal(out.p + 7, t[i].want, strlen(t[i].want));
		template_free(name);
	}
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(braces_of_json_are_text),
		cmocka_unit_test(variables_are_escaped),
		cmocka_unit_test(what_is_absent_is_empty_or_null),
		cmocka_unit_test(fields_of_the_message),
		cmocka_unit_test(members_of_info_and_value),
		cmocka_unit_test(output_is_json),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(says_what_it_uses),
		cmocka_unit_test(integers_have_one_text),
		cmocka_unit_test(names_have_no_holes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
