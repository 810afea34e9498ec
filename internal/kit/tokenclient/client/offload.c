#include "offload.h"

#include <stdlib.h>
#include <string.h>

#define THIRD_PARTY_COPY_OUT 0x83
#define THIRD_PARTY_COPY_IN 0x84

static void put_ranges(unsigned char *p, const struct block_range *ranges, int count)
{
	put16(p, (uint16_t)(16 * count));
	p += 2;
	for (int i = 0; i < count; i++, p += 16) {
		put64(p, ranges[i].lba);
		put32(p + 8, ranges[i].blocks);
		put32(p + 12, 0);
	}
}

static int send_list(struct session *s, int service_action, uint32_t list_id, unsigned char *list, size_t length,
		     struct outcome *o)
{
	unsigned char cdb[16] = { THIRD_PARTY_COPY_OUT, (unsigned char)service_action };
	put32(cdb + 6, list_id);
	put32(cdb + 10, (uint32_t)length);
	put16(list, (uint16_t)(length - 2));
	int failed = session_command(s, cdb, list, length, 0, o);
	free(list);
	return failed;
}

int populate_token(struct session *s, const struct populate *p, const struct block_range *ranges, int count,
		   struct outcome *o)
{
	size_t length = 16 + 16 * (size_t)count;
	unsigned char *list = calloc(1, length);
	list[2] = (unsigned char)(p->rod_type_valid << 1 | p->immediate);
	put32(list + 4, p->inactivity_timeout);
	put32(list + 8, p->rod_type);
	put_ranges(list + 14, ranges, count);
	return send_list(s, 0x10, p->list_id, list, length, o);
}

int write_using_token(struct session *s, const struct write_using_token *w, const struct block_range *ranges,
		      int count, struct outcome *o)
{
	size_t length = 536 + 16 * (size_t)count;
	unsigned char *list = calloc(1, length);
	list[2] = (unsigned char)(w->delete_token << 1 | w->immediate);
	put64(list + 8, w->offset);
	memcpy(list + 16, w->token, TOKEN_LENGTH);
	put_ranges(list + 534, ranges, count);
	return send_list(s, 0x11, w->list_id, list, length, o);
}

int receive_rod_token_information(struct session *s, uint32_t list_id, uint32_t allocation_length,
				  struct outcome *o)
{
	unsigned char cdb[16] = { THIRD_PARTY_COPY_IN, 0x07 };
	put32(cdb + 2, list_id);
	put32(cdb + 10, allocation_length);
	return session_command(s, cdb, NULL, 0, allocation_length, o);
}
