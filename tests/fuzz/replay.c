/* Run a fuzz target once on each file of its corpus: replay_<name> [DIR | FILE]...
 *
 * Linked with the target by the ordinary compiler, so that `make test` needs no clang and every seed, and every
 * crash that was ever found and kept, is tried by each build (plain, ASan+UBSan, TSan). Output is TAP.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned count;

static void die(const char *what)
{
	fprintf(stderr, "replay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void replay_file(const char *path, size_t size)
{
	FILE *f = fopen(path, "rb");
	/* Exactly as large as the input, so that ASan sees a read past its end. */
	uint8_t *data = malloc(size ? size : 1);

	if (f == NULL || data == NULL || fread(data, 1, size, f) != size)
		die(path);
	(void)fclose(f);
	(void)LLVMFuzzerTestOneInput(data, size);
	free(data);
	printf("ok %u - %s\n", ++count, path);
	if (fflush(stdout) != 0)
		die("stdout");
}

static void replay_dir(const char *path);

static void replay(const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		die(path);
	if (S_ISDIR(st.st_mode))
		replay_dir(path);
	else
		replay_file(path, (size_t)st.st_size);
}

static void replay_dir(const char *path)
{
	struct dirent **names;
	int n = scandir(path, &names, NULL, alphasort);

	if (n < 0)
		die(path);
	for (int i = 0; i < n; i++) {
		char *file = NULL;

		if (names[i]->d_name[0] != '.') {
			if (asprintf(&file, "%s/%s", path, names[i]->d_name) < 0)
				die("asprintf");
			replay(file);
			free(file);
		}
		free(names[i]);
	}
	free(names);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (count == 0) {
		fputs("replay: no input\n", stderr);
		return 1;
	}
	printf("1..%u\n", count);
	return 0;
}
