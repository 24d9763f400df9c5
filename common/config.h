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
#include "common/template.h"

#define CFG_MAX_WORKERS    64  /* also what `workers = auto` is capped at */
#define CFG_MAX_NAMESPACES 64  /* ids live for the life of the master, over reloads (shm/globals.h) */
#define CFG_NAME_MAX       63  /* bytes of a namespace name */
#define CFG_ROOM_MAX       255 /* bytes of a room name */
#define CFG_PATH_MAX       1024
#define CFG_MAX_AUTHS      32
#define CFG_MAX_RULES      64 /* of one namespace */
#define CFG_MAX_FIELDS     16 /* coerced by one rule */
#define CFG_KEYS_MAX       (1024 * 1024) /* bytes of a file of keys */

/* What Redis channels and keys of the server itself begin with; no namespace's channel may. */
#define CFG_OWN_PREFIX "ringcast:"

enum cfg_mode { CFG_SLOW_DISCONNECT, CFG_SLOW_SKIP };
enum cfg_opcode { CFG_OPCODE_AUTO, CFG_OPCODE_TEXT, CFG_OPCODE_BINARY };
enum cfg_envelope { CFG_ENVELOPE_PLAIN, CFG_ENVELOPE_JSON };
enum cfg_refuse { CFG_REFUSE_403, CFG_REFUSE_CLOSE };

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
	bool proxy_protocol; /* listen only: a PROXY header (v1 or v2) comes first */
	char *api_key; /* admin only; NULL = none asked for */
};

/* Who may connect (section "auth"). */
enum cfg_auth_type { CFG_AUTH_HOOK, CFG_AUTH_JWT, CFG_AUTH_QUERY };

/* Signature algorithms of tokens: a bit set. */
enum cfg_algorithm { CFG_ALG_HS256 = 1, CFG_ALG_RS256 = 2, CFG_ALG_ES256 = 4, CFG_ALG_EDDSA = 8 };

/* One place where a request may carry something: "header" (Authorization: Bearer), "header:x-token", "cookie:name",
 * "query:name", "subprotocol" (the one behind "bearer", see docs/protocol.md). */
enum cfg_place { CFG_PLACE_HEADER, CFG_PLACE_COOKIE, CFG_PLACE_QUERY, CFG_PLACE_SUBPROTOCOL };
struct cfg_source_of {
	enum cfg_place place;
	char *name; /* lower case for headers; NULL: the Authorization header, or a subprotocol */
};

struct cfg_auth {
	char *name;
	enum cfg_auth_type type;

	/* hook; 0 and NULL for the other types */
	uint32_t recheck; /* ms between checks of an open connection; 0 = never */
	char *url, *secret; /* "http://...", "https://..." or "unix:/path:/uri"; secret: sent as Authorization: Bearer, NULL = none */
	char *ca_file, *ca_text; /* https: the file's path, and the PEM in it; NULL: the system's authorities */
	size_t ca_len;
	uint32_t timeout, concurrency; /* ms; requests under way of all workers together */
	struct cfg_source_of *cache_key;
	size_t n_cache_key; /* 0: nothing is cached */
	uint32_t cache_ttl, breaker_failures, breaker_pause;

	/* jwt; 0 and NULL for the other types */
	unsigned algorithms; /* enum cfg_algorithm bits */
	char *keys, *keys_text; /* the file's path, and what stood in it when the configuration was read: PEM, JWKS, or
				 * (HS256 alone) the secret itself; a NUL follows it */
	size_t keys_len;
	struct cfg_source_of *from;
	size_t n_from;
	char *user_claim, *groups_claim, *audience, *issuer; /* "sub", "groups"; NULL: not looked at */
	uint32_t leeway; /* ms that clocks may differ */
};

/* What a client's message does (section "rule" of a namespace). */
enum cfg_match { CFG_MATCH_TYPE, CFG_MATCH_TEXT };
enum cfg_action {
	CFG_ACTION_REPLY,    /* answer with `frame` */
	CFG_ACTION_PUBLISH,  /* publish `frame` to the socket's own channel */
	CFG_ACTION_FORWARD,  /* to the namespace's hook; its frames go to this socket */
	CFG_ACTION_IGNORE,
	CFG_ACTION_RETAINED, /* answer with the namespace's retained message, if there is one */
	CFG_ACTION_STORE,    /* SET `key` `value` EX ttl in Redis */
	CFG_ACTION_RECEIPT,  /* the user has read message `key` */
};
enum cfg_coerce { CFG_COERCE_BOOL, CFG_COERCE_INT, CFG_COERCE_STRING };
struct cfg_field {
	char *name; /* top-level key of the message */
	enum cfg_coerce as;
};
struct cfg_rule {
	char *name; /* a message's "type", or (match = text) the whole text */
	enum cfg_match match;
	enum cfg_action action;
	struct template *frame, *key, *value; /* NULL where the action has none */
	struct cfg_field *coerce; /* what {msg.NAME} may name: the template's field numbers are indices here */
	size_t n_coerce;
	uint32_t throttle; /* ms; publish: of one user and room at most one in that time, unless the coerced fields changed */
	bool is_low;       /* priority = "low": dropped under load */
	uint32_t ttl;      /* ms; store */
};

/* What a newcomer gets besides the greeting (retain = ...). */
enum cfg_retain { CFG_RETAIN_OFF, CFG_RETAIN_LAST, CFG_RETAIN_REDIS };

struct cfg_namespace {
	char *name;
	uint16_t id; /* index into the master's registry of names; set by the master before the fork */

	char *path;        /* template as written: literal segments and at most one "{room}" or "{room:int}" */
	char *path_prefix; /* what stands before it; the whole path if there is none */
	char *path_suffix; /* what stands after it; "" if nothing */
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

	bool room_is_int;    /* "{room:int}" in the path: an integer, routed by its canonical text */
	bool targeted_only;  /* json: what names no target reaches nobody */
	const struct cfg_auth *auth; /* of the same configuration; NULL: anybody, without identity */
	char *user_query;    /* query parameter that names the user; NULL = none */
	bool user_query_is_int;
	enum cfg_refuse refuse;
	uint32_t bad_frames; /* the how manieth closes with 1008; 0 = none does */
	struct template *greeting; /* first frame; NULL = none */
	bool hook_first_frames;    /* the hook's frames follow the greeting */
	struct cfg_rule *rules;
	size_t n_rules;
	struct { /* section "idle": a frame for a client that says nothing */
		uint32_t after; /* ms; 0 = none */
		struct template *frame;
		bool any_frame; /* life = "any": a pong counts, too; else text and binary messages alone */
	} idle;
	enum cfg_retain retain;
	struct template *retain_key, *retain_unless, *retain_frame; /* CFG_RETAIN_REDIS: GET key; not if `unless` exists */
	bool presence; /* who is online is kept by channel, and in Redis */
	bool receipts;
	uint32_t receipts_ttl; /* ms */
	uint32_t offline_max;  /* messages kept for a user who is away; 0 = none */
	uint32_t offline_ttl;  /* ms */
	uint32_t msg_rate, msg_burst; /* messages a second of one connection; 0 = no limit. The burst is never 0 when a rate
				       * is not */
	uint32_t user_rate;           /* the same for all connections of a user to this worker */
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
	uint32_t msg_rate, msg_burst, user_rate; /* defaults of the namespaces */
	uint32_t per_user, per_address; /* sockets on this host; 0 = no limit */
	uint32_t connect_rate, connect_burst; /* handshakes a second of one address; 0 = no limit */
};

/* A network: the first `bits` bits of an IPv6 address (IPv4 ones are mapped, ::ffff:a.b.c.d). */
struct cfg_network {
	uint8_t address[16];
	uint8_t bits;
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
	/* sentinel://[user:password@]h1[:port],h2,h3/name[/db]: the sentinels to ask, and the name to ask for; else none.
	 * host and port above are then the first sentinel's. */
	struct {
		char *host;
		uint16_t port;
	} sentinels[8];
	unsigned n_sentinels;
	char *sentinel_name;
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
		uint32_t accept_rate; /* of all workers together; 0 = no limit */
	} stop;
	uint64_t memory_limit; /* 0 = none */
	struct cfg_network *trusted_proxies;
	size_t n_trusted_proxies;
	bool trusts_unix; /* "unix:" is one of them: clients of unix sockets are proxies */
	struct cfg_auth *auths;
	size_t n_auths;
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

/* The auth section of that name, or NULL. Pure. */
struct cfg_auth *config_find_auth(const struct config *c, struct slice name);

/* Is the address (IPv6, or IPv4 mapped) in the network? Pure. */
bool config_network_has(const struct cfg_network *n, const uint8_t address[16]);

/* Free what a listener owns and zero it. */
void config_listener_clear(struct cfg_listener *l);

/* Free what the URL gave (url, host, user, password, path, sentinels) and make it NULL; the rest stays. */
void config_redis_clear(struct cfg_redis *r);

/* Free everything below and the struct itself. NULL is fine. */
void config_free(struct config *c);

#endif
