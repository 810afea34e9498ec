package journal

import "encoding/binary"

// queue has the records that are not durable, in reused chunks of memory. A record is
// its length, 4 bytes, and its payload. Bytes before the end of the queue do not
// change, so they can be read without the lock while records are added.
type queue struct {
	chunks []*chunk
	free   []*chunk
	unit   int    // length of an ordinary chunk
	end    cursor // after the last record
	start  cursor // after the last trimmed record
}

type chunk struct {
	memory []byte
	n      int // bytes in use
}

// cursor is a position between two records, with the totals of the records before it
// since Open.
type cursor struct {
	chunk, off int   // position in the queue
	lsn        LSN   // of the record before it
	payload    int64 // bytes
	encoded    int64 // bytes, as on the disk
}

const prefixLength = 4

// held is the number of payload bytes in memory.
func (q *queue) held() int { return int(q.end.payload - q.start.payload) }

// add copies a record to the end and returns the new end.
func (q *queue) add(head, data []byte) cursor {
	length := len(head) + len(data)
	c := q.space(prefixLength + length)
	p := c.memory[c.n:]
	binary.LittleEndian.PutUint32(p, uint32(length))
	copy(p[prefixLength:], head)
	copy(p[prefixLength+len(head):], data)
	c.n += prefixLength + length
	q.end = q.end.next(length)
	q.end.chunk = len(q.chunks) - 1
	q.end.off = c.n
	return q.end
}

// next is the cursor after a record of the given length in the same chunk.
func (c cursor) next(length int) cursor {
	c.off += prefixLength + length
	c.lsn++
	c.payload += int64(length)
	c.encoded += recordLength(length)
	return c
}

// space returns a chunk with n free bytes at its end.
func (q *queue) space(n int) *chunk {
	if k := len(q.chunks); k > 0 {
		if c := q.chunks[k-1]; n <= len(c.memory)-c.n {
			return c
		}
	}
	var c *chunk
	switch k := len(q.free); {
	case n > q.unit:
		c = &chunk{memory: make([]byte, n)}
	case k > 0:
		c = q.free[k-1]
		q.free = q.free[:k-1]
	default:
		c = &chunk{memory: make([]byte, q.unit)}
	}
	q.chunks = append(q.chunks, c)
	return c
}

// trim drops the records before at, and returns the number of dropped chunks, by which
// later cursors must move.
func (q *queue) trim(at cursor) (dropped int) {
	dropped = at.chunk
	if at.lsn == q.end.lsn {
		dropped = len(q.chunks)
	}
	for _, c := range q.chunks[:dropped] {
		c.n = 0
		if len(c.memory) == q.unit {
			q.free = append(q.free, c)
		}
	}
	left := copy(q.chunks, q.chunks[dropped:])
	clear(q.chunks[left:])
	q.chunks = q.chunks[:left]
	q.start = at
	if left == 0 {
		q.end.chunk, q.end.off = 0, 0
		q.start.chunk, q.start.off = 0, 0
	} else {
		q.end.chunk -= dropped
		q.start.chunk -= dropped
	}
	return dropped
}
