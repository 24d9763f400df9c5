/* load_progress.c - the line that shows how a run goes. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "bench/load_series.h"
#include "bench/load_units.h"

static int columns(void)
{
	struct winsize w;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1 : 79;
}

/* What is cut off a narrow terminal is the latency's end, not the errors. */
static size_t line(char *text, size_t size, const struct load_series *s, const struct load_second *now)
{
	const double per_s = now->length_s > 0 ? 1 / now->length_s : 0;
	char sent[24], read[24], p50[24], p99[24], latency[80] = "";
	int n;

	units_short(sent, sizeof(sent), (double)now->published * per_s);
	units_short(read, sizeof(read), (double)now->deliveries * per_s);
	units_digits(p50, sizeof(p50), (double)now->p50_ns * 1e-6);
	units_digits(p99, sizeof(p99), (double)now->p99_ns * 1e-6);
	if (now->n && snprintf(latency, sizeof(latency), "  p50 %s p99 %s ms", p50, p99) < 0)
		latency[0] = '\0';
	n = snprintf(text, size, "%-7s %4.0fs  %u open  %s sent/s  %s read/s  %llu errors%s",
		     load_phase_name(now->phase), now->at_s + now->length_s, now->open, sent, read,
		     (unsigned long long)s->before.errors, latency);
	return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}

/* On a terminal the line is drawn over the last one, and never wraps: that could not be drawn over. */
void load_progress(const struct load_series *s, const struct load_second *now)
{
	char text[256];
	const int len = (int)line(text, sizeof(text), s, now), width = columns();

	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%.*s\033[K", len < width ? len : width, text);
	else
		fprintf(stderr, "%s\n", text);
	fflush(stderr);
}

void load_progress_end(const struct load_series *s)
{
	(void)s;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
}
