/* config_lex.h - the words of the configuration language, as libconfuse 3.3 reads them, less what is a trap
 * there: a character that it would skip is refused here. Pure, over memory that the caller holds.
 */
#ifndef RC_CONFIG_LEX_H
#define RC_CONFIG_LEX_H

#include "common/base.h"

enum lex_type {
	LEX_END,
	LEX_WORD,  /* bare, quoted, or a bare ${ENV} */
	LEX_PUNCT, /* one of { } ( ) = , and + for "+=" */
	LEX_BAD,   /* `what` says what is wrong */
};

enum lex_quote { LEX_BARE, LEX_DOUBLE, LEX_SINGLE, LEX_ENV };

struct lex_token {
	enum lex_type type;
	enum lex_quote quote;
	char punct;
	struct slice raw; /* a word, without its quotes, escapes unread */
	unsigned line;    /* where it begins */
	const char *what;
};

struct lexer {
	const char *p, *end;
	unsigned line;
};

struct lex_token lex_next(struct lexer *lx);

/* The next ${NAME} or ${NAME:-default} in a double-quoted or bare-env word from *at on. False if there is
 * none. `name` gets the name, *has_default whether a default stands there. The lexer has checked the form. */
bool lex_next_env(const struct lex_token *tok, size_t *at, struct slice *name, bool *has_default);

#endif
