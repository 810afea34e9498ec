#include "transfer.h"

#include "input.h"

#include <stdlib.h>
#include <string.h>

enum state { FREE, READING, READ, WRITING };

struct slot {
	struct run *run;
	enum state state;
	unsigned char *buffer;
	uint64_t first; /* block, counted from the start of the transfer */
	uint32_t blocks;
};

struct run {
	struct transfer *t;
	struct slot *slots;
	uint32_t block_length;
	uint64_t next;     /* first block not begun */
	uint64_t emit;     /* first block not yet given to out */
	int busy;          /* slots that are not FREE */
	int failed;        /* a command failed: begin no more */
	int disconnected;
};

static void note_failure(struct run *r, int status, struct scsi_task *task)
{
	if (r->failed++)
		return;
	r->t->status = status;
	if (status == SCSI_STATUS_CHECK_CONDITION && task && task->datain.size > 2) {
		size_t n = (size_t)task->datain.size - 2;
		r->t->sense_length = n < sizeof r->t->sense ? n : sizeof r->t->sense;
		memcpy(r->t->sense, task->datain.data + 2, r->t->sense_length);
	}
}

static void release(struct slot *slot)
{
	slot->state = FREE;
	slot->run->busy--;
}

static void begin_write(struct slot *slot);

static void ended(struct iscsi_context *iscsi, int status, void *data, void *private)
{
	(void)iscsi;
	struct slot *slot = private;
	struct run *r = slot->run;
	struct scsi_task *task = data;
	int reading = slot->state == READING;
	if (status != SCSI_STATUS_GOOD) {
		note_failure(r, status, task);
		release(slot);
	} else if (!reading) {
		r->t->done += slot->blocks;
		release(slot);
	} else if (r->t->to) {
		begin_write(slot);
	} else {
		slot->state = READ;
	}
	/* libiscsi may still refer to tasks of a connection that failed. */
	if (task && !(status & 0x0f000000))
		scsi_free_scsi_task(task);
}

static void submit(struct slot *slot, struct session *s, struct scsi_task *task)
{
	if (task && s->iscsi && iscsi_scsi_command_async(s->iscsi, s->lun, task, ended, NULL, slot) == 0)
		return;
	if (task)
		scsi_free_scsi_task(task);
	slot->run->disconnected = 1;
	release(slot);
}

static void begin_read(struct slot *slot)
{
	struct transfer *t = slot->run->t;
	uint32_t bytes = slot->blocks * slot->run->block_length;
	struct scsi_task *task = scsi_cdb_read16(t->from_lba + slot->first, bytes, (int)slot->run->block_length, 0, 0, 0, 0, 0);
	slot->state = READING;
	if (task)
		scsi_task_add_data_in_buffer(task, (int)bytes, slot->buffer);
	submit(slot, t->from, task);
}

static void begin_write(struct slot *slot)
{
	struct transfer *t = slot->run->t;
	uint32_t bytes = slot->blocks * slot->run->block_length;
	struct scsi_task *task = scsi_cdb_write16(t->to_lba + slot->first, bytes, (int)slot->run->block_length, 0, 0, t->fua, 0, 0);
	slot->state = WRITING;
	if (task)
		scsi_task_add_data_out_buffer(task, (int)bytes, slot->buffer);
	submit(slot, t->to, task);
}

/* Begins commands while there are blocks left and slots free. */
static void begin(struct run *r)
{
	struct transfer *t = r->t;
	for (int i = 0; i < t->depth && r->next < t->blocks; i++) {
		struct slot *slot = &r->slots[i];
		if (slot->state != FREE)
			continue;
		uint64_t left = t->blocks - r->next;
		slot->first = r->next;
		slot->blocks = left < t->chunk ? (uint32_t)left : t->chunk;
		size_t bytes = (size_t)slot->blocks * r->block_length;
		if (!t->from && !input_data(slot->buffer, bytes))
			exit(3); /* whoever feeds us is gone */
		r->next += slot->blocks;
		if (r->failed || r->disconnected) {
			if (t->from)
				return;
			i--; /* read the input to its end */
			continue;
		}
		r->busy++;
		if (t->from)
			begin_read(slot);
		else
			begin_write(slot);
	}
}

/* Gives out what was read, in order. */
static void emit(struct run *r)
{
	for (int i = 0; i < r->t->depth; i++) {
		struct slot *slot = &r->slots[i];
		if (slot->state != READ || slot->first != r->emit)
			continue;
		size_t bytes = (size_t)slot->blocks * r->block_length;
		fprintf(r->t->out, "{\"chunk\":%zu}\n", bytes);
		if (fwrite(slot->buffer, 1, bytes, r->t->out) != bytes)
			exit(3);
		r->emit += slot->blocks;
		r->t->done += slot->blocks;
		release(slot);
		i = -1; /* the next in order may stand anywhere */
	}
}

/* After a failure what was read behind it is of no use. */
static void drop_unordered(struct run *r)
{
	for (int i = 0; i < r->t->depth; i++)
		if (r->slots[i].state == READ)
			release(&r->slots[i]);
}

/*
 * Releases what is under way when all sessions are gone: libiscsi does not call back for
 * commands that it has given up after a logout that the target has asked for.
 */
static void drop_lost(struct run *r)
{
	if ((r->t->from && r->t->from->iscsi) || (r->t->to && r->t->to->iscsi))
		return;
	for (int i = 0; i < r->t->depth; i++)
		if (r->slots[i].state == READING || r->slots[i].state == WRITING)
			release(&r->slots[i]);
}

int transfer_run(struct transfer *t)
{
	struct run r = { .t = t };
	struct session *both[2] = { NULL, NULL };
	int count = 0;
	if (t->from)
		both[count++] = t->from;
	if (t->to && t->to != t->from)
		both[count++] = t->to;
	r.block_length = both[0]->block_length;
	r.slots = calloc((size_t)t->depth, sizeof *r.slots);
	for (int i = 0; i < t->depth; i++) {
		r.slots[i].run = &r;
		r.slots[i].buffer = malloc((size_t)t->chunk * r.block_length);
	}
	int64_t start = now_microseconds();
	for (;;) {
		begin(&r);
		emit(&r);
		if (r.failed || r.disconnected)
			drop_unordered(&r);
		if (r.busy == 0 && (r.next == t->blocks || (t->from && (r.failed || r.disconnected))))
			break;
		if (r.busy > 0)
			sessions_serve(-1);
		for (int i = 0; i < count; i++)
			r.disconnected |= !both[i]->iscsi;
		if (r.disconnected)
			drop_lost(&r);
	}
	t->microseconds = now_microseconds() - start;
	if (t->status & 0x0f000000)
		r.disconnected = 1;
	if (r.disconnected) {
		/* Ends the outstanding commands, which refer to slots. */
		for (int i = 0; i < count; i++)
			session_abandon(both[i]);
		if (!t->from)
			while (r.next < t->blocks)
				begin(&r);
	}
	for (int i = 0; i < t->depth; i++)
		free(r.slots[i].buffer);
	free(r.slots);
	return r.disconnected ? -1 : 0;
}
