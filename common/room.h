/* room.h - which names a room may have, one rule for paths, the API and route keys. Any process; pure. */
#ifndef RC_ROOM_H
#define RC_ROOM_H

#include "common/base.h"

/* 1..CFG_ROOM_MAX bytes of UTF-8 without control characters (C0, DEL, C1) and '/', and neither "." nor "..".
 */
bool room_is_valid(struct slice room) MUST_CHECK;

/* Percent-decode one path segment once and check it. dst holds CFG_ROOM_MAX + 1 bytes; a NUL is added.
 * Returns the room's length, or 0 if it is no room ("%zz" and '/' in disguise included). */
size_t room_from_segment(struct slice segment, char *dst) MUST_CHECK;

#endif
