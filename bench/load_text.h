/* load_text.h - what clients say and what they must hear: templates, the request to upgrade and its answer.
 *
 * In a template, %d is the channel's number, %c the connection's and %% a percent sign; every other % stays
 * as it is, so that a byte in URL encoding goes through when its letters are capitals (%C3). Clients are
 * numbered 0, 1, 2...; the connections of WebSocket publishers follow them.
 *
 * Pure functions. Source: RFC 6455, sections 4.1 and 4.2.2.
 */
#ifndef BENCH_LOAD_TEXT_H
#define BENCH_LOAD_TEXT_H

#include "bench/load.h"

#define LOAD_REQUEST_MAX 8192 /* of a request to upgrade; what common servers take */

/* Copy `tmpl` to dst (NUL-terminated), filled in. Returns the length, 0 if it does not fit. */
size_t load_expand(char *dst, size_t size, const char *tmpl, uint32_t channel, uint32_t conn) MUST_CHECK;

/* Write the request to upgrade for `path` (a template) to dst. Returns the length, 0 if it does not fit. */
size_t load_request(char *dst, size_t size, const struct load_opts *o, const char *path, uint32_t channel,
		    uint32_t conn) MUST_CHECK;

/* What is wrong with an answer's head (up to the line end of its last header, NUL-terminated): NULL if it is
 * the 101 that was asked for. Otherwise text for people, which may lie in `head`. */
const char *load_answer_fault(const struct load_opts *o, char *head) MUST_CHECK;

/* Write all --first-frame texts as masked frames to dst. Returns the length, -1 if they do not fit. */
ssize_t load_first_frames(uint8_t *dst, size_t size, const struct load_opts *o, uint32_t channel,
			  uint32_t conn) MUST_CHECK;

#endif
