/* config.h - the configuration as every process reads it.
 *
 * The master parses a file into a fresh `struct config` (master/config_load.c), never changes it after
 * that, and forks workers, which inherit it. A HUP makes a new one beside the old; a worker keeps the one
 * that it was born with. All strings are owned by the config; nothing here is shared memory.
 *
 * Units: durations are milliseconds, sizes are bytes; 0 = no limit where config_keys.c says so.
 */
#ifndef RC_CONFIG_H
#define RC_CONFIG_H

#include "common/base.h"

#define CFG_MAX_WORKERS    64  /* also what `workers = auto` is capped at */
#define CFG_MAX_NAMESPACES 64  /* ids live for the life of the master, over reloads (shm/globals.h) */
#define CFG_NAME_MAX       63  /* bytes of a namespace name */
#define CFG_ROOM_MAX       255 /* bytes of a room name */
#define CFG_PATH_MAX       1024

/* What Redis channels and keys of the server itself begin with; no namespace's channel may. */
#define CFG_OWN_PREFIX "ringcast:"

enum cfg_mode { CFG_SLOW_DISCONNECT, CFG_SLOW_SKIP };
enum cfg_opcode { CFG_OPCODE_AUTO, CFG_OPCODE_TEXT, CFG_OPCODE_BINARY };
enum cfg_envelope { CFG_ENVELOPE_PLAIN }; /* json comes with the feeds */

/* Who may publish into a namespace: a bit set. */
enum cfg_source { CFG_SRC_CLIENT = 1, CFG_SRC_API = 2, CFG_SRC_REDIS = 4 };

/* Where the room comes from. */
enum cfg_room {
	CFG_ROOM_NONE, /* the namespace is one channel, named like the namespace */
	CFG_ROOM_PATH, /* {room} is one whole segment of the path */
	CFG_ROOM_CONN, /* room = "{conn}": each connection has a channel of its own */
};

struct cfg_listener {
	char *addr; /* as written: "127.0.0.1:8080", "[::1]:80", "unix:/path"; checked */
	bool is_unix;
	char *path;  /* unix: the path */
	char *host;  /* tcp: numeric host without brackets; "" or "*" = any */
	uint16_t port; /* tcp: 0 = let the kernel choose */
	int backlog;
	mode_t mode;   /* unix only */
	char *api_key; /* admin only; NULL = none asked for */
};

struct cfg_namespace {
	char *name;
	uint16_t id; /* index into the master's registry of names; set by the master before the fork */

	char *path;        /* template as written: literal segments and at most one "{room}" */
	char *path_prefix; /* what stands before {room}; the whole path if there is none */
	char *path_suffix; /* what stands after {room}; "" if nothing */
	enum cfg_room room;

	/* Redis channel: prefix + room + suffix; a family channel (redis_has_room false) is prefix alone. */
	char *redis_prefix;
	char *redis_suffix;
	bool redis_has_room;
	char *route_key; /* family channel with rooms: the top-level JSON key that names the room; else NULL */
	bool eager;      /* subscribe to the family channel at start; always true for a family channel */

	enum cfg_envelope envelope;
	enum cfg_opcode opcode;
	unsigned publish; /* enum cfg_source bits */
	enum cfg_mode slow;
	bool on_gap_close; /* on_gap = "close": 1013 after a gap of the Redis link */
	char **origins;    /* n_origins entries, normalised by config_origin_normalise(); "*" = any */
	size_t n_origins;  /* 0: same host as Host, or no Origin header at all */
	uint32_t max_message;     /* client frames, bytes */
	uint32_t max_publication; /* from Redis and the API, bytes */
};

struct cfg_limits {
	uint32_t max_connections, max_handshakes;
	uint32_t handshake_timeout;
	uint32_t max_head, max_headers;
	uint32_t ping_interval, pong_timeout, idle_timeout, slow_timeout, close_linger;
	uint32_t send_buffer; /* SO_SNDBUF, bytes */
	uint64_t slow_memory; /* bytes per worker */
	uint32_t max_message, max_publication, max_fragments;
	uint16_t unknown_path_status; /* 404 or 403 */
};

struct cfg_redis {
	char *url; /* NULL or "": local mode */
	bool tls, is_unix;
	char *host, *user, *password, *path; /* NULL where absent; credentials percent-decoded */
	uint16_t port;
	uint32_t db;
	uint32_t timeout, ping_interval, backoff_min, backoff_max;
	uint64_t pending_size;
	uint32_t resend_delay, subscribe_timeout, unsubscribe_delay, lease;
	char *ca_file; /* rediss: NULL = the system's store */
	bool tls_verify;
};

struct config {
	char *file; /* NULL: built-in defaults */
	uint32_t workers;
	char *user, *pid_file, *log_file;
	int log_level;
	struct cfg_listener *listens, *admins;
	size_t n_listens, n_admins;
	struct {
		uint64_t size, uplink_size;
		uint32_t stuck_time, hold_max;
	} ring;
	struct cfg_redis redis;
	struct cfg_limits limits;
	struct {
		uint32_t drain_time;
		uint16_t close_code;
	} stop;
	struct cfg_namespace *namespaces;
	size_t n_namespaces;
};

/* Write an Origin ("https://Example.org:443") as scheme://host[:port] in lower case without a default
 * port into dst. Returns false if it is none ("null", a path, no host). Pure. */
bool config_origin_normalise(struct slice origin, char *dst, size_t size) MUST_CHECK;

/* The room's Redis channel into dst (NUL-terminated). Returns its length, or 0 if the room can have none: it does
 * not fit, or would begin with CFG_OWN_PREFIX (a template like "{room}" allows that). Pure. */
size_t config_redis_channel(const struct cfg_namespace *ns, struct slice room, char *dst, size_t size);

/* Namespace by name or by id; NULL if there is none. Pure. */
const struct cfg_namespace *config_find(const struct config *c, struct slice name);
const struct cfg_namespace *config_find_id(const struct config *c, uint16_t id);

/* Free what a listener owns and zero it. */
void config_listener_clear(struct cfg_listener *l);

/* Free what the URL gave (url, host, user, password, path) and make them NULL; the rest stays. */
void config_redis_clear(struct cfg_redis *r);

/* Free everything below and the struct itself. NULL is fine. */
void config_free(struct config *c);

#endif
