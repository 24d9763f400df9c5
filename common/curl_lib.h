/* curl_lib.h - libcurl, loaded when a configuration has an authorization hook and not before: with the
 * libraries that it brings along (TLS twice, Kerberos, LDAP) it is two thirds of what an idle server's code
 * and tables take in memory.
 *
 * The master loads it when it reads such a configuration, before workers are forked: they share its pages.
 * Never unloaded. Any process; not from two threads at once.
 */
#ifndef RC_CURL_LIB_H
#define RC_CURL_LIB_H

/* Its macros would check options and call libcurl's functions by their own names, which nothing is linked to.
 */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "common/base.h"

#define CURL_LIB_FUNCTIONS(X)                                                                                \
	X(global_init)                                                                                       \
	X(global_cleanup)                                                                                    \
	X(easy_init)                                                                                         \
	X(easy_cleanup) X(easy_setopt) X(easy_getinfo) X(multi_init) X(multi_cleanup) X(multi_setopt)        \
		X(multi_add_handle) X(multi_remove_handle) X(multi_info_read) X(multi_socket_action)         \
			X(multi_assign) X(slist_append) X(slist_free_all)

struct curl_lib {
#define X(name) __typeof__(&curl_##name) name;
	CURL_LIB_FUNCTIONS(X)
#undef X
};

/* libcurl's functions, without their prefix. NULL: it is not loaded. */
const struct curl_lib *curl_lib(void);

/* Load it, if it is not loaded yet. 0, or -1 with *why: one line, valid until the next call. */
int curl_lib_load(const char **why) MUST_CHECK;

#endif
