/* script.h - a fuzz input read as a script, byte by byte. Pure. */
#ifndef FUZZ_SCRIPT_H
#define FUZZ_SCRIPT_H

#include <stddef.h>
#include <stdint.h>

struct script {
	const uint8_t *p;
	size_t len;
};

/* The next byte; 0 behind the end. */
static inline uint8_t next(struct script *s)
{
	if (s->len == 0)
		return 0;
	s->len--;
	return *s->p++;
}

#endif
