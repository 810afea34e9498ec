package meta

import (
	"bytes"
	"fmt"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// A table is a Badger table of up to tableBytes, or of one longer row. It is read and
// verified as a whole before Badger decodes it, and all its rows are decoded at once,
// so that every row in the index can be read.
const (
	tableBytes = 64 << 10
	tableRows  = 256
)

// rowVersion is the only Badger version of each row.
const rowVersion = 1

// row is a row of a table.
type row struct {
	key    []byte
	sealed []byte
}

// tableOptions: blocks are not compressed, since fingerprints and addresses do
// not compress, and Badger need not verify what is verified.
func tableOptions(size int) table.Options {
	return table.Options{
		TableSize: uint64(size), BlockSize: blockBytes,
		Compression: options.None, ChkMode: options.NoVerification,
	}
}

// decodeTable returns the rows of a table, which refer to data. Badger panics on an
// inconsistent table.
func decodeTable(data []byte) (rows []row, err error) {
	defer func() {
		if r := recover(); r != nil {
			rows, err = nil, fmt.Errorf("metadata engine: %v", r)
		}
	}()
	if len(data) == 0 {
		return nil, nil
	}
	if err := checkTable(data); err != nil {
		return nil, err
	}
	opts := tableOptions(len(data))
	t, err := table.OpenInMemoryTable(data, 1, &opts)
	if err != nil {
		return nil, fmt.Errorf("metadata engine: %w", err)
	}
	rows = make([]row, 0, min(int(t.KeyCount()), len(data)))
	it := t.NewIterator(table.NOCACHE)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		rows = append(rows, row{key: bytes.Clone(y.ParseKey(it.Key())), sealed: it.Value().Value})
	}
	if len(rows) != int(t.KeyCount()) {
		return nil, fmt.Errorf("metadata engine: table of %d rows ends after %d", t.KeyCount(), len(rows))
	}
	return rows, nil
}

// checkTable returns an error for lengths with which Badger ends the process.
func checkTable(data []byte) error {
	left := len(data)
	for _, what := range []string{"checksum", "index"} {
		if left < 4 {
			return fmt.Errorf("metadata engine: table of %d bytes", len(data))
		}
		n := int(y.BytesToU32(data[left-4 : left]))
		if left -= 4; n > left {
			return fmt.Errorf("metadata engine: table of %d bytes with a %s of %d", len(data), what, n)
		}
		left -= n
	}
	return nil
}
