package record

import (
	"fmt"

	"odx/backstore/rows"
	"odx/blockdev"
)

// Change says what a record of the journal changes.
type Change struct {
	// Kind is that of the record: "write", "unmap", "map", "snapshot", …, or
	// "unknown".
	Kind string
	// What names a volume or file, by its number where its name is not known, a
	// snapshot, or "records".
	What string
	// Offset and Length are the bytes of it, in whole blocks; both are 0 where
	// the record is not about bytes.
	Offset int64
	Length int64
	// Detail says where a map or a clone comes from, the number of a snapshot, a
	// new name or size.
	Detail string
}

// Where says what is changed.
func (c *Change) Where() string {
	if c.Length == 0 {
		return c.What
	}
	return fmt.Sprintf("%s, %d bytes at %d", c.What, c.Length, c.Offset)
}

// Names are those of volumes and files, by number, as one record after the other
// leaves them.
type Names struct {
	known func(number uint64) (rows.Name, bool) // nil: none is
	later map[uint64]rows.Name                  // of records; they are newer
}

// of names a volume or a file.
func (n *Names) of(number uint64) string {
	if key, ok := n.key(number); ok {
		return key.String()
	}
	return fmt.Sprintf("volume or file number %d", number)
}

// key returns the name of a volume or a file.
func (n *Names) key(number uint64) (key rows.Name, ok bool) {
	if key, ok = n.later[number]; !ok && n.known != nil {
		key, ok = n.known(number)
	}
	return key, ok
}

// Rename gives a volume or file a name, and returns the one that it had.
func (n *Names) Rename(number uint64, key rows.Name) (old string) {
	old = n.of(number)
	if n.later == nil {
		n.later = make(map[uint64]rows.Name)
	}
	n.later[number] = key
	return old
}

// blocksOf returns a change of blocks, without its range if no volume is that long.
func blocksOf(kind, what string, first, count uint64, detail string) []Change {
	const most = rows.MaxBytes / blockdev.BlockLength
	if first > most || count > most-first {
		return []Change{{Kind: kind, What: what, Detail: "blocks that no volume has"}}
	}
	return []Change{{Kind: kind, What: what, Offset: int64(first) * blockdev.BlockLength, Length: int64(count) * blockdev.BlockLength, Detail: detail}}
}
