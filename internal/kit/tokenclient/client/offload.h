/*
 * The parameter lists of POPULATE TOKEN and WRITE USING TOKEN, as SBC-4 lays
 * them out (5.12 and 5.59).
 */
#ifndef OFFLOAD_H
#define OFFLOAD_H

#include "session.h"

struct block_range {
	uint64_t lba;
	uint32_t blocks;
};

#define MAX_RANGES 4096
#define TOKEN_LENGTH 512

struct populate {
	uint32_t list_id;
	uint32_t inactivity_timeout; /* seconds; 0: the target's default */
	int rod_type_valid;
	uint32_t rod_type;
	int immediate;
};

struct write_using_token {
	uint32_t list_id;
	uint64_t offset; /* into the ROD, in blocks of the destination */
	int delete_token;
	int immediate;
	unsigned char token[TOKEN_LENGTH];
};

int populate_token(struct session *s, const struct populate *p, const struct block_range *ranges, int count,
		   struct outcome *o);
int write_using_token(struct session *s, const struct write_using_token *w, const struct block_range *ranges,
		      int count, struct outcome *o);
/* RECEIVE ROD TOKEN INFORMATION (SPC-4 6.26), undecoded. */
int receive_rod_token_information(struct session *s, uint32_t list_id, uint32_t allocation_length,
				  struct outcome *o);

#endif
