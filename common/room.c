#include "common/room.h"

#include "common/config.h"
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

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t room_from_segment(struct slice segment, char *dst)
{
	size_t n = 0, i = 0;
	int hi, lo;

	while (i < segment.len) {
		if (n == CFG_ROOM_MAX)
			return 0;
		if (segment.p[i] != '%') {
			dst[n++] = segment.p[i++];
			continue;
		}
		if (segment.len - i < 3)
			return 0;
		hi = hex_digit(segment.p[i + 1]);
		lo = hex_digit(segment.p[i + 2]);
		if (hi < 0 || lo < 0)
			return 0;
		dst[n++] = (char)(hi << 4 | lo);
		i += 3;
	}
	dst[n] = '\0';
	return room_is_valid((struct slice){dst, n}) ? n : 0;
}
