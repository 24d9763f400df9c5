#include "common/room.h"

#include "common/config.h"
#include "common/percent.h"
#include "common/utf8.h"

/* C1 controls are C2 80 .. C2 9F; being a pair of bytes they can't be told from one byte alone. */
static bool has_control(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] < 0x20 || p[i] == 0x7f || p[i] == '/')
			return true;
		if (p[i] == 0xc2 && i + 1 < len && p[i + 1] < 0xa0)
			return true;
	}
	return false;
}

bool room_is_valid(struct slice room)
{
	if (room.len == 0 || room.len > CFG_ROOM_MAX || has_control((const uint8_t *)room.p, room.len))
		return false;
	if (room.p[0] == '.' && (room.len == 1 || (room.len == 2 && room.p[1] == '.')))
		return false;
	return utf8_is_valid(room.p, room.len);
}

size_t room_from_segment(struct slice segment, char *dst)
{
	ssize_t n = percent_decode(segment, false, dst, CFG_ROOM_MAX);

	if (n <= 0)
		return 0;
	dst[n] = '\0';
	return room_is_valid((struct slice){dst, (size_t)n}) ? (size_t)n : 0;
}
