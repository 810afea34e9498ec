/*
 * Bulk data by READ(16) and WRITE(16), several commands outstanding.
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include "session.h"

#include <stdio.h>

struct transfer {
	struct session *from; /* NULL: data come from stdin */
	struct session *to;   /* NULL: data go to the file out, in chunks */
	uint64_t from_lba, to_lba, blocks;
	uint32_t chunk; /* blocks of one command */
	int depth;      /* commands outstanding */
	int fua;        /* of the writes */
	FILE *out;

	/* filled in */
	int64_t microseconds;
	uint64_t done; /* blocks of commands that ended GOOD */
	int status;    /* of the first command that did not */
	unsigned char sense[256];
	size_t sense_length;
};

/*
 * Reads, writes or copies. All of the input is consumed even after a failure,
 * so that what follows it stays readable. Data read are framed: a line
 * {"chunk":N}, then N bytes, in the order of addresses.
 * Returns -1 when a connection failed.
 */
int transfer_run(struct transfer *t);

#endif
