#include "master/redis_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"

struct redis_tls {
	SSL_CTX *ctx;
	SSL *ssl; /* NULL between connections */
	BIO_METHOD *method;
	bool wants_write;
	const char *reason;
};

/* A socket BIO of our own: OpenSSL's uses write(), which raises SIGPIPE on a reset link. */
static int bio_write(BIO *b, const char *p, int len)
{
	ssize_t n = send((int)(intptr_t)BIO_get_data(b), p, (size_t)len, MSG_NOSIGNAL);

	BIO_clear_retry_flags(b);
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(b);
	return (int)n;
}

static int bio_read(BIO *b, char *p, int len)
{
	ssize_t n = recv((int)(intptr_t)BIO_get_data(b), p, (size_t)len, 0);

	BIO_clear_retry_flags(b);
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(b);
	return (int)n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	(void)b;
	(void)num;
	(void)ptr;
	return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *make_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "redis link");

	if (m == NULL)
		return NULL;
	if (BIO_meth_set_write(m, bio_write) && BIO_meth_set_read(m, bio_read) &&
	    BIO_meth_set_ctrl(m, bio_ctrl))
		return m;
	BIO_meth_free(m);
	return NULL;
}

static void log_ssl(const char *what)
{
	struct log_quoted q;
	char text[256];

	ERR_error_string_n(ERR_peek_last_error(), text, sizeof(text));
	log_event(LOG_ERROR, "redis_tls", "reason=%s msg=%s", what, log_quote(&q, text, strlen(text)));
}

static int load_authorities(SSL_CTX *ctx, const struct cfg_redis *cfg)
{
	if (!cfg->tls_verify) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
		return 0;
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (cfg->ca_file != NULL && cfg->ca_file[0] != '\0')
		return SSL_CTX_load_verify_locations(ctx, cfg->ca_file, NULL) == 1 ? 0 : -1;
	return SSL_CTX_set_default_verify_paths(ctx) == 1 ? 0 : -1;
}

struct redis_tls *redis_tls_new(const struct cfg_redis *cfg)
{
	struct redis_tls *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	ERR_clear_error();
	t->reason = "tls";
	t->method = make_method();
	t->ctx = SSL_CTX_new(TLS_client_method());
	if (t->method == NULL || t->ctx == NULL || !SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION)) {
		log_ssl("openssl");
		redis_tls_free(t);
		return NULL;
	}
	/* The output buffer moves when it grows, and a write may be retried with more behind it. */
	SSL_CTX_set_mode(t->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (load_authorities(t->ctx, cfg) == -1) {
		log_ssl("ca_file");
		redis_tls_free(t);
		return NULL;
	}
	return t;
}

void redis_tls_free(struct redis_tls *t)
{
	if (t == NULL)
		return;
	SSL_free(t->ssl);
	SSL_CTX_free(t->ctx);
	BIO_meth_free(t->method);
	free(t);
}

/* Whose certificate it must be, and the name the server chooses it by (which must not be an address). */
static int set_peer(SSL *ssl, const char *host)
{
	unsigned char addr[sizeof(struct in6_addr)];

	if (inet_pton(AF_INET, host, addr) == 1 || inet_pton(AF_INET6, host, addr) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 ? 0 : -1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1 ? 0 : -1;
}

int redis_tls_start(struct redis_tls *t, int fd, const struct cfg_redis *cfg)
{
	BIO *bio = BIO_new(t->method);

	t->ssl = SSL_new(t->ctx);
	if (bio == NULL || t->ssl == NULL || set_peer(t->ssl, cfg->host) == -1) {
		BIO_free(bio);
		redis_tls_stop(t);
		errno = ENOMEM;
		return -1;
	}
	BIO_set_data(bio, (void *)(intptr_t)fd);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio); /* owns it from here */
	SSL_set_connect_state(t->ssl);
	t->wants_write = false;
	return 0;
}

void redis_tls_stop(struct redis_tls *t)
{
	if (t == NULL)
		return;
	/* No close_notify: the link is dead or of no interest, and a write might meet a full socket. */
	SSL_free(t->ssl);
	t->ssl = NULL;
}

/* OpenSSL's verdict on a call that returned `rc` <= 0, as errno. `saved` is errno after the call. */
static int judge(struct redis_tls *t, int rc, int saved)
{
	int e = SSL_get_error(t->ssl, rc);

	t->wants_write = e == SSL_ERROR_WANT_WRITE;
	if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
		errno = EAGAIN;
		return -1;
	}
	if (e == SSL_ERROR_ZERO_RETURN)
		return 0;
	if (e == SSL_ERROR_SYSCALL)
		return saved == 0 ? 0 : (errno = saved, -1);
	if (ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return 0; /* a killed Redis sends no close_notify; RESP frames itself, so nothing is cut */
	t->reason = SSL_get_verify_result(t->ssl) != X509_V_OK ? "certificate" : "tls";
	errno = EPROTO;
	return -1;
}

int redis_tls_handshake(struct redis_tls *t)
{
	int rc;

	ERR_clear_error();
	errno = 0;
	rc = SSL_do_handshake(t->ssl);
	return rc == 1 ? 1 : judge(t, rc, errno);
}

ssize_t redis_tls_read(struct redis_tls *t, void *p, size_t len)
{
	int rc;

	ERR_clear_error();
	errno = 0;
	rc = SSL_read(t->ssl, p, len > INT_MAX ? INT_MAX : (int)len);
	if (rc > 0)
		return rc;
	return judge(t, rc, errno);
}

ssize_t redis_tls_write(struct redis_tls *t, const void *p, size_t len)
{
	int rc;

	ERR_clear_error();
	errno = 0;
	rc = SSL_write(t->ssl, p, len > INT_MAX ? INT_MAX : (int)len);
	if (rc > 0)
		return rc;
	return judge(t, rc, errno);
}

bool redis_tls_wants_write(const struct redis_tls *t)
{
	return t->wants_write;
}

bool redis_tls_has_input(const struct redis_tls *t)
{
	return t->ssl != NULL && SSL_pending(t->ssl) > 0;
}

const char *redis_tls_reason(const struct redis_tls *t)
{
	return t->reason;
}
