/* LINK: */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/base64.h"

static ssize_t decode(const char *text, char *dst)
{
	return base64_decode((struct slice){text, strlen(text)}, dst);
}

static void decodes_the_vectors_of_rfc_4648(void **state)
{
	static const char *const v[][2] = {{"", ""},
					   {"f", "Zg=="},
					   {"fo", "Zm8="},
					   {"foo", "Zm9v"},
					   {"foob", "Zm9vYg=="},
					   {"fooba", "Zm9vYmE="},
					   {"foobar", "Zm9vYmFy"}};
	char out[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		assert_int_equal(decode(v[i][1], out), strlen(v[i][0]));
		assert_memory_equal(out, v[i][0], strlen(v[i][0]));
		assert_int_equal(base64_encode((struct slice){v[i][0], strlen(v[i][0])}, out),
				 strlen(v[i][1]));
		assert_memory_equal(out, v[i][1], strlen(v[i][1]));
	}
}

static void refuses_everything_that_is_not_canonical(void **state)
{
	static const char *const bad[] = {
		"Z",
		"Zg",
		"Zg=",
		"Zm9vYg=",
		"Zm9v\n",
		" Zm9v",
		"Zm9v ",
		"Zm 9v===",
		"====",
		"=g==",
		"Zg=g",
		"Z===",
		"Zg==Zg==",
		"Zm8=Zm9v",
		"Zm-_",
		"Zm9\xc3",
		"Zh==",
		"Zm9=",
		"Zn8=x",
		"Zg==\r\n",
		"Zg======",
		"Zm9v====",
		"\xff\xff\xff\xff",
	};
	char out[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (i == 20) /* the one with a NUL inside, given with its length */
			assert_int_equal(base64_decode((struct slice){bad[i], 8}, out), -1);
		else if (decode(bad[i], out) != -1)
			fail_msg("accepted: \"%s\"", bad[i]);
	}
	assert_int_equal(base64_decode((struct slice){"Zm9v\0Zg=", 8}, out), -1);
}

/* All lengths, random bytes, both ways against OpenSSL, decoding in place. */
static void agrees_with_openssl(void **state)
{
	unsigned char data[128], text[256];
	char mine[256];

	(void)state;
	srandom(7);
	for (int round = 0; round < 2000; round++) {
		size_t len = (size_t)round % sizeof(data);
		int n;

		for (size_t i = 0; i < len; i++)
			data[i] = (unsigned char)random();
		n = EVP_EncodeBlock(text, data, (int)len);
		assert_int_equal(base64_encode((struct slice){(char *)data, len}, mine), n);
		assert_memory_equal(mine, text, n);
		assert_int_equal(BASE64_ENCODED(len), n);
		assert_true(BASE64_DECODED_MAX(n) >= len);
		assert_int_equal(base64_decode((struct slice){mine, (size_t)n}, mine), len);
		assert_memory_equal(mine, data, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes_the_vectors_of_rfc_4648),
		cmocka_unit_test(refuses_everything_that_is_not_canonical),
		cmocka_unit_test(agrees_with_openssl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
