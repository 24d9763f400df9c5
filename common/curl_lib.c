#include "common/curl_lib.h"

#include <dlfcn.h>
#include <string.h>

#define CURL_LIB_NAME "libcurl.so.4" /* the ABI that curl.h describes */

static struct curl_lib lib;
static bool is_loaded;

const struct curl_lib *curl_lib(void)
{
	return is_loaded ? &lib : NULL;
}

static int find(void *handle, const char *name, void *function, size_t size)
{
	void *address = dlsym(handle, name);

	if (address == NULL)
		return -1;
	memcpy(function, &address, size); /* ISO C has no cast from one to the other; POSIX has dlsym() */
	return 0;
}

int curl_lib_load(const char **why)
{
	static void *handle; /* kept when a function is missing: the next try finds the same */

	if (is_loaded)
		return 0;
	if (handle == NULL)
		handle = dlopen(CURL_LIB_NAME, RTLD_LAZY | RTLD_LOCAL);
	if (handle == NULL) {
		*why = dlerror();
		return -1;
	}
#define X(name)                                                                                              \
	if (find(handle, "curl_" #name, &lib.name, sizeof(lib.name)) == -1) {                                \
		*why = dlerror();                                                                            \
		return -1;                                                                                   \
	}
	CURL_LIB_FUNCTIONS(X)
#undef X
	is_loaded = true;
	return 0;
}
