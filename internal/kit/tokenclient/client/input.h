/*
 * What comes on stdin: lines, and data after some of them. While there is
 * nothing the sessions are served.
 */
#ifndef INPUT_H
#define INPUT_H

#include <stddef.h>

/* Reads a line without its end; longer ones are cut. Returns 0 at the end. */
int input_line(char *line, size_t size);
/* Reads exactly n bytes. Returns 0 when the input ends before. */
int input_data(unsigned char *p, size_t n);

#endif
