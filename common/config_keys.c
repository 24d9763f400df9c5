#include "common/config_keys.h"

#include <stdio.h>
#include <string.h>

#include "common/config.h"

#define KI   (1024ull)
#define MI   (1024ull * 1024)
#define GI   (1024ull * 1024 * 1024)
#define SEC  (1000ull)
#define MIN  (60 * SEC)
#define HOUR (60 * MIN)
#define DAY  (24 * HOUR)

#define AT(type, field)  .offset = offsetof(struct type, field), .size = sizeof(((struct type *)0)->field)
#define CONF(field)      AT(config, field)
#define LISTENER(field)  AT(cfg_listener, field)
#define NS(field)        AT(cfg_namespace, field)
#define AUTH(field)      AT(cfg_auth, field)
#define RULE(field)      AT(cfg_rule, field)
#define RANGE(lo, hi)    .min = (lo), .max = (hi)
#define OR_ZERO(meaning) .zero_ok = true, .zero = (meaning)
#define LATER            .when = CKEY_LATER, .reloadable = true
#define PARAM            .when = CKEY_PARAM, .reloadable = true
#define RELOAD           .reloadable = true
#define UNCHECKED        .max = UINT64_MAX

const struct config_section config_sections[] = {
	{"", "", false, CKEY_NOW, CKEY_CONFIG, "the process"},
	{"listen", "", true, CKEY_NOW, CKEY_LISTENER, "a listener for WebSocket clients"},
	{"admin", "", true, CKEY_NOW, CKEY_LISTENER, "a listener for the HTTP API, health, statistics"},
	{"ring", "", false, CKEY_NOW, CKEY_CONFIG, "the shared memory between master and workers"},
	{"redis", "", false, CKEY_NOW, CKEY_CONFIG, "the Redis side"},
	{"limits", "", false, CKEY_NOW, CKEY_CONFIG, "bounds of connections and messages"},
	{"stop", "", false, CKEY_NOW, CKEY_CONFIG, "how the server stops"},
	{"reload", "", false, CKEY_NOW, CKEY_CONFIG, "how generations of workers follow each other"},
	{"namespace", "", true, CKEY_NOW, CKEY_NAMESPACE, "a family of channels"},
	{"auth", "", true, CKEY_NOW, CKEY_AUTH, "who may connect"},
	{"rule", "namespace", true, CKEY_NOW, CKEY_RULE, "what a client's message does"},
	{"idle", "namespace", false, CKEY_NOW, CKEY_NAMESPACE, "a frame for a client that says nothing"},
};
const size_t config_n_sections = ARRAY_LEN(config_sections);

const struct config_key config_keys[] = {
	/* The process. */
	{"", "workers", CKEY_WORKERS, RANGE(1, CFG_MAX_WORKERS), .def = "auto", CONF(workers), RELOAD,
	 .help = "worker processes; auto: one for each CPU that the server may use, at most 64"},
	{"", "user", CKEY_STRING, .def = "\"\"", CONF(user),
	 .help = "the account that workers run as; empty: the one that started the server"},
	{"", "pid_file", CKEY_STRING, .def = "\"\"", CONF(pid_file),
	 .help = "where the master writes its process id; empty: nowhere"},
	{"", "log_file", CKEY_STRING, .def = "\"\"", CONF(log_file), RELOAD,
	 .help = "where log lines are appended; empty: standard error"},
	{"", "log_level", CKEY_ENUM, .choices = "error|warn|info|debug", .max = 3, .def = "info",
	 CONF(log_level), RELOAD, .help = "the least important lines that are written"},
	{"", "memory_limit", CKEY_SIZE, RANGE(16 * MI, 1024 * GI), OR_ZERO("no limit"), .def = "0",
	 CONF(memory_limit), RELOAD,
	 .help = "memory of all processes together, with the whole ring; near it new connections get 503"},
	{"", "trusted_proxies", CKEY_LIST, .def = "{}", RELOAD,
	 .help = "addresses and networks (10.0.0.0/8, ::1) whose X-Forwarded-For is believed; \"unix:\": "
		 "that of "
		 "clients of unix sockets"},

	/* Listeners. */
	{"listen", "backlog", CKEY_UINT, RANGE(1, 1000000), .def = "4096", LISTENER(backlog), RELOAD,
	 .help = "connections that wait to be accepted; the kernel caps it at net.core.somaxconn"},
	{"listen", "mode", CKEY_OCTAL, RANGE(0, 0777), .def = "0660", LISTENER(mode), RELOAD,
	 .help = "permissions of a unix socket"},
	{"listen", "proxy_protocol", CKEY_BOOL, .max = 1, .def = "off", LISTENER(proxy_protocol), RELOAD,
	 .help = "each connection begins with a PROXY header, version 1 or 2; without one it is closed"},
	{"admin", "backlog", CKEY_UINT, RANGE(1, 1000000), .def = "4096", LISTENER(backlog), RELOAD,
	 .help = "connections that wait to be accepted; the kernel caps it at net.core.somaxconn"},
	{"admin", "mode", CKEY_OCTAL, RANGE(0, 0777), .def = "0600", LISTENER(mode), RELOAD,
	 .help = "permissions of a unix socket"},
	{"admin", "api_key", CKEY_STRING, LISTENER(api_key), RELOAD,
	 .help = "what /api/ requests must show in X-API-Key or Authorization: Bearer; without it nothing is "
		 "asked for"},

	/* Ring. */
	{"ring", "size", CKEY_SIZE, RANGE(MI, 4 * GI), .def = "64m", CONF(ring.size),
	 .help = "bytes of the broadcast ring, a power of two; how far a slow client may lie behind"},
	{"ring", "uplink_size", CKEY_SIZE, RANGE(256 * KI, GI), .def = "1m", CONF(ring.uplink_size),
	 .help = "bytes of each worker's way to the master, a power of two, at most ring.size"},
	{"ring", "stuck_time", CKEY_DURATION, RANGE(100, 10 * MIN), .def = "5s", CONF(ring.stuck_time),
	 RELOAD, .help = "a worker whose heartbeat stands still for that long is killed and replaced"},
	{"ring", "hold_max", CKEY_DURATION, RANGE(100, 10 * MIN), .def = "5s", CONF(ring.hold_max), RELOAD,
	 .help = "a worker that alone keeps the ring full for that long is killed and replaced"},

	/* Redis. */
	{"redis", "url", CKEY_STRING, .def = "\"\"",
	 .help = "redis://[user:password@]host[:port][/db], rediss:// (TLS), unix:///path[?db=N], "
		 "sentinel://[user:password@]h1[:port],h2,.../name[/db]; empty: local mode, no Redis"},
	{"redis", "timeout", CKEY_DURATION, RANGE(10, MIN), .def = "1s", CONF(redis.timeout),
	 .help = "for an attempt to connect, and for the answer to a PING"},
	{"redis", "ping_interval", CKEY_DURATION, RANGE(10, HOUR), .def = "1s", CONF(redis.ping_interval),
	 .help = "between PINGs on each link"},
	{"redis", "backoff_min", CKEY_DURATION, RANGE(1, MIN), .def = "50ms", CONF(redis.backoff_min),
	 .help = "pause before the first new attempt"},
	{"redis", "backoff_max", CKEY_DURATION, RANGE(1, 10 * MIN), .def = "500ms", CONF(redis.backoff_max),
	 .help = "longest pause between attempts, at least backoff_min"},
	{"redis", "pending_size", CKEY_SIZE, RANGE(64 * KI, 1024 * GI), .def = "16m",
	 CONF(redis.pending_size), .help = "bytes of own publications that Redis has not acknowledged yet"},
	{"redis", "resend_delay", CKEY_DURATION, RANGE(1, 20 * MIN), OR_ZERO("at once"),
	 CONF(redis.resend_delay),
	 .help = "between a reconnect and sending again, so that the other replicas are subscribed; default: "
		 "twice backoff_max"},
	{"redis", "subscribe_timeout", CKEY_DURATION, RANGE(10, MIN), .def = "1s",
	 CONF(redis.subscribe_timeout),
	 .help = "a client that waits for its channel's subscription is let in after that, and counted"},
	{"redis", "unsubscribe_delay", CKEY_DURATION, RANGE(1, DAY), OR_ZERO("at once"), .def = "5s",
	 CONF(redis.unsubscribe_delay),
	 .help = "a channel stays subscribed for that long after its last client"},
	{"redis", "lease", CKEY_DURATION, RANGE(SEC, HOUR), .def = "15s", CONF(redis.lease),
	 .help = "life of the server's own Redis keys (who is online here) unless they are renewed"},
	{"redis", "ca_file", CKEY_STRING, CONF(redis.ca_file),
	 .help = "certificates that rediss:// trusts, PEM; without it: the system's"},
	{"redis", "tls_verify", CKEY_BOOL, .max = 1, .def = "on", CONF(redis.tls_verify),
	 .help = "off: rediss:// encrypts but accepts any certificate"},

	/* Limits. */
	{"limits", "max_connections", CKEY_UINT, RANGE(1, 100000000), OR_ZERO("no limit but the open files"),
	 .def = "0", CONF(limits.max_connections), RELOAD,
	 .help = "client connections of all workers together"},
	{"limits", "max_handshakes", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("no limit"), .def = "4096",
	 CONF(limits.max_handshakes), RELOAD, .help = "unfinished handshakes of one worker"},
	{"limits", "handshake_timeout", CKEY_DURATION, RANGE(100, 10 * MIN), OR_ZERO("no limit"),
	 .def = "10s", CONF(limits.handshake_timeout), RELOAD,
	 .help = "from accept to a complete request head; beyond it 408"},
	{"limits", "max_head", CKEY_SIZE, RANGE(KI, MI), .def = "16k", CONF(limits.max_head), RELOAD,
	 .help = "bytes of a request head; beyond it 431"},
	{"limits", "max_headers", CKEY_UINT, RANGE(8, 256), .def = "100", CONF(limits.max_headers), RELOAD,
	 .help = "header lines of a request; beyond it 431"},
	{"limits", "ping_interval", CKEY_DURATION, RANGE(100, DAY), OR_ZERO("no pings"), .def = "20s",
	 CONF(limits.ping_interval), RELOAD, .help = "between the server's pings"},
	{"limits", "pong_timeout", CKEY_DURATION, RANGE(100, DAY), OR_ZERO("wait for ever"), .def = "20s",
	 CONF(limits.pong_timeout), RELOAD,
	 .help = "a client that answers no ping for that long is closed with 1011"},
	{"limits", "idle_timeout", CKEY_DURATION, RANGE(100, 7 * DAY), OR_ZERO("no limit"), .def = "0",
	 CONF(limits.idle_timeout), RELOAD,
	 .help = "a client from which nothing came for that long, not even a pong, is closed with 1008"},
	{"limits", "slow_timeout", CKEY_DURATION, RANGE(100, HOUR), OR_ZERO("no limit"), .def = "10s",
	 CONF(limits.slow_timeout), RELOAD,
	 .help = "a client whose socket takes no byte for that long is slow"},
	{"limits", "close_linger", CKEY_DURATION, RANGE(1, 10 * MIN), OR_ZERO("none"), .def = "5s",
	 CONF(limits.close_linger), RELOAD,
	 .help = "how long a Close may wait for the client before the reset"},
	{"limits", "send_buffer", CKEY_SIZE, RANGE(4 * KI, 64 * MI), OR_ZERO("the kernel sizes it"),
	 .def = "128k", CONF(limits.send_buffer), RELOAD,
	 .help = "the kernel's send buffer of a connection (SO_SNDBUF)"},
	{"limits", "slow_memory", CKEY_SIZE, RANGE(MI, 1024 * GI), OR_ZERO("no limit"), .def = "64m",
	 CONF(limits.slow_memory), RELOAD,
	 .help = "bytes that one worker may keep for half-sent frames of slow clients"},
	{"limits", "max_message", CKEY_SIZE, RANGE(1, 16 * MI), .def = "64k", CONF(limits.max_message),
	 RELOAD,
	 .help = "bytes of a client's message, at most a quarter of ring.size; exactly it is allowed; beyond "
		 "it 1009"},
	{"limits", "max_publication", CKEY_SIZE, RANGE(1, 16 * MI), .def = "1m", CONF(limits.max_publication),
	 RELOAD, .help = "bytes of a message from Redis or the API, at most a quarter of ring.size"},
	{"limits", "max_fragments", CKEY_UINT, RANGE(1, UINT32_MAX), OR_ZERO("no limit"), .def = "1024",
	 CONF(limits.max_fragments), RELOAD, .help = "frames of one client message"},
	{"limits", "unknown_path_status", CKEY_UINT, RANGE(403, 404), .def = "404",
	 CONF(limits.unknown_path_status), RELOAD,
	 .help = "the answer to a path that no namespace has: 404 or 403"},
	{"limits", "msg_rate", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("no limit"), .def = "0",
	 CONF(limits.msg_rate), RELOAD,
	 .help = "messages a second of one connection; beyond it it is not read for a while, and closed with "
		 "1008 after 10 s of that"},
	{"limits", "msg_burst", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("as msg_rate"), .def = "0",
	 CONF(limits.msg_burst), RELOAD, .help = "messages at once, for msg_rate"},
	{"limits", "user_rate", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("no limit"), .def = "0",
	 CONF(limits.user_rate), RELOAD,
	 .help = "messages a second of all connections of one user to one worker"},
	{"limits", "per_user", CKEY_UINT, RANGE(1, 100000000), OR_ZERO("no limit"), .def = "0",
	 CONF(limits.per_user), RELOAD,
	 .help = "connections of one user to this host; beyond it 429, or 1008 with accept-then-close"},
	{"limits", "per_address", CKEY_UINT, RANGE(1, 100000000), OR_ZERO("no limit"), .def = "0",
	 CONF(limits.per_address), RELOAD,
	 .help = "connections of one client address to this host; beyond it 429, or 1008 with "
		 "accept-then-close"},
	{"limits", "connect_rate", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("no limit"), .def = "0",
	 CONF(limits.connect_rate), RELOAD,
	 .help = "handshakes a second of one client address, shared out among the workers; beyond it 429"},
	{"limits", "connect_burst", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("as connect_rate"), .def = "0",
	 CONF(limits.connect_burst), RELOAD, .help = "handshakes at once, for connect_rate"},

	/* Stop, reload. */
	{"stop", "drain_time", CKEY_DURATION, RANGE(1, HOUR), OR_ZERO("all at once"), .def = "10s",
	 CONF(stop.drain_time), RELOAD, .help = "over which the Close frames are spread at TERM"},
	{"stop", "close_code", CKEY_UINT, RANGE(1001, 4999), .def = "1001", CONF(stop.close_code), RELOAD,
	 .help = "what clients are closed with at TERM: 1001, 1012, 1013 or 3000 to 4999"},
	{"stop", "accept_rate", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("no limit"), .def = "0",
	 CONF(stop.accept_rate), RELOAD,
	 .help = "connections a second that are accepted, shared out among the workers; the rest waits in "
		 "the queue"},
	{"reload", "handoff_time", CKEY_DURATION, PARAM, UNCHECKED, .def = "5s",
	 .help = "for moving connections"},
	{"reload", "upgrade_timeout", CKEY_DURATION, PARAM, UNCHECKED, .def = "5s",
	 .help = "for a new binary to confirm"},
	{"reload", "keep_connections", CKEY_BOOL, LATER, .max = 1, .def = "off",
	 .help = "a keeper for each worker"},
	{"reload", "canary_share", CKEY_UINT, LATER, UNCHECKED, .def = "0",
	 .help = "share of connections that a new generation gets first"},
	{"reload", "canary_time", CKEY_DURATION, PARAM, UNCHECKED, .def = "10s", .help = "for canary_share"},

	/* Namespaces. */
	{"namespace", "path", CKEY_STRING, RELOAD,
	 .help = "where clients connect; at most one {room} or {room:int} (an integer, however it is spelt), "
		 "as one whole segment. Must be given"},
	{"namespace", "room", CKEY_STRING, RELOAD,
	 .help = "\"{conn}\": each connection has a room of its own (the path then has no {room}); default: "
		 "from the path"},
	{"namespace", "redis_channel", CKEY_STRING, RELOAD,
	 .help = "literal, or with {room} (or {conn}); default: the name, followed by :{room} where there "
		 "are rooms"},
	{"namespace", "route_key", CKEY_STRING, NS(route_key), RELOAD,
	 .help = "the top-level JSON key that names the room; needed, and allowed, where all rooms share one "
		 "Redis channel"},
	{"namespace", "eager", CKEY_BOOL, .max = 1, NS(eager), RELOAD,
	 .help = "the Redis channel is subscribed from the start; default: on where it has no {room}, and "
		 "nothing else is possible"},
	{"namespace", "envelope", CKEY_ENUM, .choices = "plain|json", .max = 1, .def = "plain", NS(envelope),
	 RELOAD,
	 .help = "how a message is read; plain: not at all; json: an object whose keys that begin with _ are "
		 "for "
		 "the server"},
	{"namespace", "opcode", CKEY_ENUM, .choices = "auto|text|binary", .max = 2, .def = "auto", NS(opcode),
	 RELOAD,
	 .help = "frame type of messages that others published on Redis; auto: text if it is UTF-8; text: "
		 "drops what is not"},
	{"namespace", "publish", CKEY_LIST, .choices = "client|api|redis", .def = "{ \"api\", \"redis\" }",
	 NS(publish), RELOAD, .help = "who may publish"},
	{"namespace", "slow", CKEY_ENUM, .choices = "disconnect|skip", .max = 1, .def = "disconnect",
	 NS(slow), RELOAD,
	 .help = "a client that the ring has passed is closed with 1013, or goes on at the newest message"},
	{"namespace", "on_gap", CKEY_ENUM, .choices = "ignore|close", .max = 1, .def = "ignore",
	 NS(on_gap_close), RELOAD,
	 .help = "close: clients are closed with 1013 after a gap of the Redis link"},
	{"namespace", "origins", CKEY_LIST, .def = "{}", RELOAD,
	 .help = "allowed Origin headers (scheme://host[:port]), \"*\": any; empty: the same host as Host, "
		 "or no Origin at all"},
	{"namespace", "max_message", CKEY_SIZE, RANGE(1, 16 * MI), NS(max_message), RELOAD,
	 .help = "as in limits, for this namespace; default: limits.max_message"},
	{"namespace", "max_publication", CKEY_SIZE, RANGE(1, 16 * MI), NS(max_publication), RELOAD,
	 .help = "as in limits, for this namespace; default: limits.max_publication"},
	{"namespace", "auth", CKEY_STRING, .def = "\"\"", RELOAD,
	 .help = "the auth section that says who may connect; empty: anybody may, and nobody has a name"},
	{"namespace", "user_query", CKEY_STRING, .def = "\"\"", RELOAD,
	 .help = "\"NAME\" or \"NAME:int\": the query parameter that names the user; a client whose "
		 "parameter says "
		 "something else than auth is refused"},
	{"namespace", "refuse", CKEY_ENUM, .choices = "403|accept-then-close", .max = 1, .def = "403",
	 NS(refuse), RELOAD,
	 .help = "how a client is refused: an HTTP status, or 101 and a Close with code and reason"},
	{"namespace", "targeted_only", CKEY_BOOL, .max = 1, .def = "off", NS(targeted_only), RELOAD,
	 .help = "json: a message that names no target reaches nobody instead of everybody"},
	{"namespace", "bad_frames", CKEY_UINT, RANGE(1, 65535), OR_ZERO("none does"), .def = "5",
	 NS(bad_frames), RELOAD, .help = "the how manieth frame that is no JSON object closes with 1008"},
	{"namespace", "greeting", CKEY_TEMPLATE, NS(greeting), RELOAD, .help = "the first frame of a client"},
	{"namespace", "hook_first_frames", CKEY_BOOL, .max = 1, .def = "off", NS(hook_first_frames), RELOAD,
	 .help = "the frames of the hook's answer follow the greeting"},
	{"namespace", "retain", CKEY_ENUM, .choices = "off|last|redis", .max = 2, .def = "off", NS(retain),
	 RELOAD,
	 .help = "a message that each new client gets: the last one that was published, or one made of a "
		 "Redis "
		 "key's value"},
	{"namespace", "retain_key", CKEY_TEMPLATE, NS(retain_key), RELOAD,
	 .help = "retain = redis: the key; its value is a JSON object, {value.NAME} below"},
	{"namespace", "retain_unless", CKEY_TEMPLATE, NS(retain_unless), RELOAD,
	 .help = "retain = redis: not if this key exists"},
	{"namespace", "retain_frame", CKEY_TEMPLATE, NS(retain_frame), RELOAD,
	 .help = "retain = redis: the frame; without it the value as it is"},
	{"namespace", "presence", CKEY_BOOL, .max = 1, .def = "off", NS(presence), RELOAD,
	 .help = "who is online is known by channel and, with Redis, over all replicas"},
	{"namespace", "receipts", CKEY_BOOL, .max = 1, .def = "off", NS(receipts), RELOAD,
	 .help = "clients may report messages as read (rule action receipt), publishers may ask who has"},
	{"namespace", "receipts_ttl", CKEY_DURATION, RANGE(SEC, 366 * DAY), .def = "24h", NS(receipts_ttl),
	 RELOAD, .help = "how long that is kept"},
	{"namespace", "offline_max", CKEY_UINT, RANGE(1, 200), OR_ZERO("none"), .def = "0", NS(offline_max),
	 RELOAD, .help = "targeted messages kept in Redis for a user who is not connected"},
	{"namespace", "offline_ttl", CKEY_DURATION, RANGE(SEC, 366 * DAY), .def = "24h", NS(offline_ttl),
	 RELOAD, .help = "how long they are kept"},
	{"namespace", "msg_rate", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("no limit"), NS(msg_rate), RELOAD,
	 .help = "as in limits, for this namespace; default: limits.msg_rate"},
	{"namespace", "msg_burst", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("as msg_rate"), NS(msg_burst),
	 RELOAD, .help = "as in limits; default: msg_rate where that is given here, else limits.msg_burst"},
	{"namespace", "user_rate", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("no limit"), NS(user_rate), RELOAD,
	 .help = "as in limits; default: limits.user_rate"},

	/* What a client's message does. */
	{"rule", "match", CKEY_ENUM, .choices = "type|text", .max = 1, .def = "type", RULE(match), RELOAD,
	 .help = "the title is the \"type\" of a JSON object, or the whole text"},
	{"rule", "action", CKEY_ENUM, .choices = "reply|publish|forward|ignore|retained|store|receipt",
	 .max = 6, RULE(action), RELOAD, .help = "what is done, see below. Must be given"},
	{"rule", "frame", CKEY_TEMPLATE, .only = "reply|publish", RULE(frame), RELOAD,
	 .help = "reply, publish: what is sent. Must be given there"},
	{"rule", "key", CKEY_TEMPLATE, .only = "store|receipt", RULE(key), RELOAD,
	 .help = "store: the Redis key, which begins with a letter or digit of its own; receipt: the "
		 "message's id. "
		 "Must be given there"},
	{"rule", "value", CKEY_TEMPLATE, .only = "store", RULE(value), RELOAD,
	 .help = "store: the value. Must be given there"},
	{"rule", "ttl", CKEY_DURATION, RANGE(1, 366 * DAY), OR_ZERO("for ever"), .only = "store", .def = "0",
	 RULE(ttl), RELOAD, .help = "store: how long it is kept"},
	{"rule", "throttle", CKEY_DURATION, RANGE(1, HOUR), OR_ZERO("no limit"), .only = "publish",
	 .def = "0", RULE(throttle), RELOAD,
	 .help = "publish: of one user and room at most one in that time, unless a coerced field has "
		 "changed"},
	{"rule", "priority", CKEY_ENUM, .choices = "normal|low", .max = 1, .only = "publish", .def = "normal",
	 RULE(is_low), RELOAD, .help = "publish: low: dropped under load rather than waited for"},
	{"rule", "coerce", CKEY_LIST, .only = "reply|publish|store|receipt", .def = "{}", RELOAD,
	 .help = "\"NAME:bool\", \"NAME:int\", \"NAME:string\": top-level fields of the message that "
		 "templates may "
		 "name as {msg.NAME}"},
	{"idle", "after", CKEY_DURATION, RANGE(100, DAY), OR_ZERO("none"), .def = "0", NS(idle.after), RELOAD,
	 .help = "a client that says nothing for that long gets the frame, and again after as long"},
	{"idle", "frame", CKEY_TEMPLATE, NS(idle.frame), RELOAD, .help = "what it gets"},
	{"idle", "life", CKEY_ENUM, .choices = "message|any", .max = 1, .def = "message", NS(idle.any_frame),
	 RELOAD, .help = "what counts: messages alone, or pings and pongs, too"},

	/* Authorization. */
	{"auth", "type", CKEY_ENUM, .choices = "hook|jwt|query", .max = 2, AUTH(type), RELOAD,
	 .help = "who is asked: the application by HTTP, a signed token, or nobody (user_query is believed). "
		 "Must be given"},
	{"auth", "url", CKEY_STRING, .only = "hook", AUTH(url), RELOAD,
	 .help = "http://host[:port]/uri, https://..., or unix:/path:/uri (HTTP over a unix socket). Must be "
		 "given "
		 "for a hook"},
	{"auth", "secret", CKEY_STRING, .only = "hook", AUTH(secret), RELOAD,
	 .help = "sent to the hook as Authorization: Bearer"},
	{"auth", "ca_file", CKEY_STRING, .only = "hook", AUTH(ca_file), RELOAD,
	 .help = "certificates that https:// trusts, PEM, at most 1m, read with the configuration; without "
		 "it: the system's"},
	{"auth", "timeout", CKEY_DURATION, RANGE(10, MIN), .only = "hook", .def = "3s", AUTH(timeout), RELOAD,
	 .help = "for the hook's whole answer"},
	{"auth", "concurrency", CKEY_UINT, RANGE(1, 10000), .only = "hook", .def = "64", AUTH(concurrency),
	 RELOAD, .help = "requests under way, of all workers together"},
	{"auth", "cache_key", CKEY_LIST, .only = "hook", .def = "{}", RELOAD,
	 .help = "\"cookie:NAME\", \"header:NAME\", \"query:NAME\": what the hook's verdict depends on "
		 "besides namespace "
		 "and room; empty: no verdict is used twice"},
	{"auth", "cache_ttl", CKEY_DURATION, RANGE(1, HOUR), OR_ZERO("nothing is kept"), .only = "hook",
	 .def = "5s", AUTH(cache_ttl), RELOAD, .help = "how long a verdict is used again"},
	{"auth", "breaker_failures", CKEY_UINT, RANGE(1, 1000000), OR_ZERO("never"), .only = "hook",
	 .def = "5", AUTH(breaker_failures), RELOAD,
	 .help = "after that many failures in a row the hook is not asked"},
	{"auth", "breaker_pause", CKEY_DURATION, RANGE(10, 10 * MIN), .only = "hook", .def = "2s",
	 AUTH(breaker_pause), RELOAD, .help = "for that long; then one request tries it"},
	{"auth", "recheck", CKEY_DURATION, RANGE(100, 7 * DAY), OR_ZERO("never"), .only = "hook",
	 .def = "60s", AUTH(recheck), RELOAD,
	 .help = "between two questions whether an open connection may stay"},
	{"auth", "algorithms", CKEY_LIST, .choices = "HS256|RS256|ES256|EdDSA", .only = "jwt",
	 AUTH(algorithms), RELOAD,
	 .help = "signatures that are accepted; HS256 stands alone. Must be given for jwt"},
	{"auth", "keys", CKEY_STRING, .only = "jwt", AUTH(keys), RELOAD,
	 .help = "a file of at most 1m, read with the configuration: PEM or JWKS; with HS256 also the secret "
		 "itself. "
		 "Must be given for jwt"},
	{"auth", "from", CKEY_LIST, .only = "jwt", .def = "{ \"header\" }", RELOAD,
	 .help = "where the token is looked for: \"header\" (Authorization: Bearer), \"header:NAME\", "
		 "\"query:NAME\", "
		 "\"cookie:NAME\", \"subprotocol\""},
	{"auth", "user_claim", CKEY_STRING, .only = "jwt", .def = "\"sub\"", AUTH(user_claim), RELOAD,
	 .help = "the claim that names the user"},
	{"auth", "groups_claim", CKEY_STRING, .only = "jwt", .def = "\"groups\"", AUTH(groups_claim), RELOAD,
	 .help = "the claim that lists the groups; empty: none does"},
	{"auth", "audience", CKEY_STRING, .only = "jwt", AUTH(audience), RELOAD,
	 .help = "what the claim aud must be or hold; without it: not looked at"},
	{"auth", "issuer", CKEY_STRING, .only = "jwt", AUTH(issuer), RELOAD,
	 .help = "what the claim iss must be; without it: not looked at"},
	{"auth", "leeway", CKEY_DURATION, RANGE(1, 5 * MIN), OR_ZERO("none"), .only = "jwt", .def = "5s",
	 AUTH(leeway), RELOAD, .help = "by how much clocks may differ"},
};
const size_t config_n_keys = ARRAY_LEN(config_keys);

static bool slice_is(struct slice a, const char *b)
{
	return strlen(b) == a.len && memcmp(a.p, b, a.len) == 0;
}

const struct config_section *config_section_find(const char *parent, struct slice name)
{
	for (size_t i = 1; i < config_n_sections; i++)
		if (strcmp(config_sections[i].parent, parent) == 0 && slice_is(name, config_sections[i].name))
			return &config_sections[i];
	return NULL;
}

const struct config_key *config_key_find(const char *section, struct slice name)
{
	for (size_t i = 0; i < config_n_keys; i++)
		if (strcmp(config_keys[i].section, section) == 0 && slice_is(name, config_keys[i].name))
			return &config_keys[i];
	return NULL;
}

/* The end of the choice that begins at `p`. */
static const char *choice_end(const char *p)
{
	return strchrnul(p, '|');
}

int config_choice(const char *choices, const char *word)
{
	size_t len = strlen(word);
	int i = 0;

	for (const char *p = choices; p != NULL; i++) {
		const char *end = choice_end(p);

		if ((size_t)(end - p) == len && memcmp(p, word, len) == 0)
			return i;
		p = *end == '|' ? end + 1 : NULL;
	}
	return -1;
}

uint64_t config_key_get(const struct config_key *k, const void *base)
{
	const char *p = (const char *)base + k->offset;
	uint64_t v8 = 0;
	uint32_t v4;
	uint16_t v2;

	switch (k->size) {
	case 1:
		return *(const uint8_t *)p;
	case 2:
		memcpy(&v2, p, sizeof(v2));
		return v2;
	case 4:
		memcpy(&v4, p, sizeof(v4));
		return v4;
	case 8:
		memcpy(&v8, p, sizeof(v8));
		return v8;
	}
	return 0;
}

void config_key_set(const struct config_key *k, void *base, uint64_t value)
{
	char *p = (char *)base + k->offset;
	uint8_t v1 = (uint8_t)value;
	uint16_t v2 = (uint16_t)value;
	uint32_t v4 = (uint32_t)value;

	switch (k->size) {
	case 1:
		memcpy(p, &v1, sizeof(v1));
		break;
	case 2:
		memcpy(p, &v2, sizeof(v2));
		break;
	case 4:
		memcpy(p, &v4, sizeof(v4));
		break;
	case 8:
		memcpy(p, &value, sizeof(value));
		break;
	}
}

struct unit {
	const char *name;
	uint64_t factor;
};

/* The largest unit that divides it, so that what is printed reads back as the same number. */
static const char *format_unit(uint64_t v, const struct unit *units, size_t n, struct config_text *dst)
{
	size_t i = 0;

	while (i + 1 < n && (v == 0 || v % units[i].factor != 0))
		i++;
	snprintf(dst->s, sizeof(dst->s), "%llu%s", (unsigned long long)(v / units[i].factor),
		 v == 0 ? "" : units[i].name);
	return dst->s;
}

const char *config_key_format(const struct config_key *k, uint64_t value, struct config_text *dst)
{
	static const struct unit sizes[] = {{"g", GI}, {"m", MI}, {"k", KI}, {"", 1}};
	static const struct unit times[] = {{"h", HOUR}, {"m", MIN}, {"s", SEC}, {"ms", 1}};
	const char *p = k->choices != NULL ? k->choices : "";

	switch (k->type) {
	case CKEY_SIZE:
		return format_unit(value, sizes, ARRAY_LEN(sizes), dst);
	case CKEY_DURATION:
		return format_unit(value, times, ARRAY_LEN(times), dst);
	case CKEY_BOOL:
		return value ? "on" : "off";
	case CKEY_OCTAL:
		snprintf(dst->s, sizeof(dst->s), "%04o", (unsigned)value);
		return dst->s;
	case CKEY_ENUM:
		for (uint64_t i = 0; i < value && *p != '\0'; i++) {
			p = choice_end(p);
			p += *p == '|';
		}
		snprintf(dst->s, sizeof(dst->s), "%.*s", (int)(choice_end(p) - p), p);
		return dst->s;
	default:
		snprintf(dst->s, sizeof(dst->s), "%llu", (unsigned long long)value);
		return dst->s;
	}
}

const char *config_key_range(const struct config_key *k, struct config_range *dst)
{
	struct config_text lo = {""}, hi = {""};

	dst->s[0] = '\0';
	if (k->choices != NULL) {
		size_t n = 0;

		for (const char *p = k->choices; p != NULL && n < sizeof(dst->s);) {
			const char *end = choice_end(p);
			int r = snprintf(dst->s + n, sizeof(dst->s) - n, "%s%.*s", n > 0 ? ", " : "",
					 (int)(end - p), p);

			n += (size_t)r;
			p = *end == '|' ? end + 1 : NULL;
		}
	} else if (k->type == CKEY_BOOL) {
		snprintf(dst->s, sizeof(dst->s), "on, off");
	} else if (k->type != CKEY_STRING && k->type != CKEY_LIST && k->type != CKEY_TEMPLATE &&
		   k->max != UINT64_MAX) {
		snprintf(dst->s, sizeof(dst->s), "%s%s%s%s%s to %s", k->type == CKEY_WORKERS ? "auto, " : "",
			 k->zero_ok ? "0 (" : "", k->zero_ok ? k->zero : "", k->zero_ok ? "), " : "",
			 config_key_format(k, k->min, &lo), config_key_format(k, k->max, &hi));
	}
	return dst->s;
}
