#include "master/config_lex.h"

#include <string.h>

static bool is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_start(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* What may stand in a word without quotes. Narrower than libconfuse, which also takes $, ; and non-ASCII. */
static bool is_bare(char c)
{
	return (unsigned char)c > 0x20 && (unsigned char)c < 0x7f && strchr("#\"'={}()+,*\\$;", c) == NULL;
}

static struct lex_token bad(const struct lexer *lx, const char *what)
{
	return (struct lex_token){.type = LEX_BAD, .line = lx->line, .what = what};
}

/* Skip a C comment; false if it never ends. */
static bool skip_block_comment(struct lexer *lx)
{
	const char *close = memmem(lx->p + 2, (size_t)(lx->end - lx->p - 2), "*/", 2);

	if (close == NULL)
		return false;
	for (; lx->p < close; lx->p++)
		lx->line += *lx->p == '\n';
	lx->p += 2;
	return true;
}

/* White space and comments. False at a comment that never ends. */
static bool skip_space(struct lexer *lx)
{
	while (lx->p < lx->end) {
		char c = *lx->p, next = lx->p + 1 < lx->end ? lx->p[1] : '\0';

		if (c == '\n') {
			lx->line++;
			lx->p++;
		} else if (c == ' ' || c == '\t' || c == '\r') {
			lx->p++;
		} else if (c == '#' || (c == '/' && next == '/')) {
			lx->p = memchr(lx->p, '\n', (size_t)(lx->end - lx->p));
			if (lx->p == NULL)
				lx->p = lx->end;
		} else if (c == '/' && next == '*') {
			if (!skip_block_comment(lx))
				return false;
		} else {
			break;
		}
	}
	return true;
}

/* The length of "${NAME}" or "${NAME:-default}" at `p`, or 0 if it is malformed. */
static size_t env_length(const char *p, const char *end)
{
	const char *q = p + 2;

	if (q >= end || !is_name_start(*q))
		return 0;
	while (q < end && (is_name_start(*q) || is_digit(*q)))
		q++;
	if (q + 1 < end && q[0] == ':' && q[1] == '-') {
		while (q < end && *q != '}' && *q != '"' && *q != '\\' && !is_control((unsigned char)*q))
			q++;
	}
	return q < end && *q == '}' ? (size_t)(q + 1 - p) : 0;
}

/* The length of the escape at `p` (a backslash) in "...", or 0 if libconfuse would refuse or misread it. */
static size_t escape_length(const char *p, const char *end)
{
	unsigned v = 0;
	size_t n = 1;

	if (p + 1 >= end)
		return 0;
	if (p[1] == 'x') {
		while (n < 3 && p + n + 1 < end && strchr("0123456789abcdefABCDEF", p[n + 1]) != NULL &&
		       p[n + 1] != '\0') {
			v |= p[n + 1] != '0';
			n++;
		}
		return n > 1 && v != 0 ? n + 1 : 0;
	}
	if (!is_digit(p[1]))
		return is_control((unsigned char)p[1]) && p[1] != '\n' ? 0 : 2;
	while (p + n < end && is_digit(p[n])) {
		if (n > 3 || p[n] > '7')
			return 0;
		v = v * 8 + (unsigned)(p[n] - '0');
		n++;
	}
	return v >= 1 && v <= 255 ? n : 0;
}

static struct lex_token lex_quoted(struct lexer *lx)
{
	struct lex_token t = {.type = LEX_WORD, .line = lx->line};
	char quote = *lx->p++;

	t.quote = quote == '"' ? LEX_DOUBLE : LEX_SINGLE;
	t.raw.p = lx->p;
	while (lx->p < lx->end && *lx->p != quote) {
		size_t n = 1;

		if (*lx->p == '\n')
			return bad(&(struct lexer){.line = t.line}, "the string is not closed on its line");
		if (is_control((unsigned char)*lx->p))
			return bad(lx, "control character in a string");
		if (*lx->p == '\\' && quote == '"')
			n = escape_length(lx->p, lx->end);
		else if (*lx->p == '\\')
			n = lx->p + 1 < lx->end && (!is_control((unsigned char)lx->p[1]) || lx->p[1] == '\n')
				    ? 2
				    : 0;
		else if (*lx->p == '$' && quote == '"' && lx->p + 1 < lx->end && lx->p[1] == '{')
			n = env_length(lx->p, lx->end);
		if (n == 0)
			return bad(lx, *lx->p == '$'
					       ? "malformed ${...}: ${NAME} or ${NAME:-default} is expected"
					       : "bad escape sequence in a string");
		lx->line += *lx->p == '\\' && lx->p[1] == '\n';
		lx->p += n;
	}
	if (lx->p >= lx->end)
		return bad(&(struct lexer){.line = t.line}, "the string is not closed");
	t.raw.len = (size_t)(lx->p - t.raw.p);
	lx->p++;
	return t;
}

static struct lex_token lex_word(struct lexer *lx)
{
	struct lex_token t = {.type = LEX_WORD, .quote = LEX_BARE, .line = lx->line, .raw = {lx->p, 0}};

	if (*lx->p == '$' && lx->p + 1 < lx->end && lx->p[1] == '{') {
		t.quote = LEX_ENV;
		t.raw.len = env_length(lx->p, lx->end);
		if (t.raw.len == 0)
			return bad(lx, "malformed ${...}: ${NAME} or ${NAME:-default} is expected");
		lx->p += t.raw.len;
	} else {
		while (lx->p < lx->end && is_bare(*lx->p))
			lx->p++;
		t.raw.len = (size_t)(lx->p - t.raw.p);
	}
	if (t.raw.len == 0)
		return bad(lx, is_control((unsigned char)*lx->p) ? "control character"
								 : "unexpected character; quote the value");
	return t;
}

struct lex_token lex_next(struct lexer *lx)
{
	struct lex_token t = {.type = LEX_PUNCT};

	if (!skip_space(lx))
		return bad(lx, "the comment is not closed");
	t.line = lx->line;
	if (lx->p >= lx->end) {
		t.type = LEX_END;
		return t;
	}
	if (*lx->p == '+' && lx->p + 1 < lx->end && lx->p[1] == '=') {
		t.punct = '+';
		lx->p += 2;
		return t;
	}
	if (*lx->p != '\0' && strchr("{}()=,", *lx->p) != NULL) {
		t.punct = *lx->p++;
		return t;
	}
	if (*lx->p == '"' || *lx->p == '\'')
		return lex_quoted(lx);
	return lex_word(lx);
}

bool lex_next_env(const struct lex_token *tok, size_t *at, struct slice *name, bool *has_default)
{
	const char *p = tok->raw.p + *at, *end = tok->raw.p + tok->raw.len;

	if (tok->quote != LEX_DOUBLE && tok->quote != LEX_ENV)
		return false;
	for (; p < end; p++) {
		if (*p == '\\') {
			p++;
			continue;
		}
		if (*p == '$' && p + 1 < end && p[1] == '{')
			break;
	}
	if (p >= end)
		return false;
	name->p = p + 2;
	for (p += 2; p < end && *p != '}' && *p != ':';)
		p++;
	name->len = (size_t)(p - name->p);
	*has_default = p < end && *p == ':';
	p = memchr(p, '}', (size_t)(end - p));
	*at = (size_t)((p == NULL ? end : p + 1) - tok->raw.p);
	return true;
}
