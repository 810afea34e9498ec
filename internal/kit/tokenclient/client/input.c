#include "input.h"

#include "session.h"

#include <string.h>
#include <unistd.h>

static unsigned char buffer[1 << 16];
static size_t first, last; /* what is in buffer and not yet taken */

static int refill(void)
{
	while (!sessions_serve(STDIN_FILENO))
		;
	ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
	first = 0;
	last = n > 0 ? (size_t)n : 0;
	return last > 0;
}

int input_line(char *line, size_t size)
{
	for (size_t n = 0;;) {
		if (first == last && !refill())
			return 0;
		unsigned char c = buffer[first++];
		if (c == '\n') {
			line[n] = 0;
			return 1;
		}
		if (n < size - 1)
			line[n++] = (char)c;
	}
}

int input_data(unsigned char *p, size_t n)
{
	while (n) {
		if (first == last && !refill())
			return 0;
		size_t take = last - first < n ? last - first : n;
		memcpy(p, buffer + first, take);
		first += take;
		p += take;
		n -= take;
	}
	return 1;
}
