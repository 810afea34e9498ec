package format2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// Badger ends the process, or panics in a goroutine of its own, for some damaged files.
// So the files are verified before it opens them.

// logHeader is the length of the header of a log file in bytes.
const logHeader = 20

// ErrDamaged reports a damaged or missing file of the metadata.
var ErrDamaged = errors.New("metadata is damaged")

// verify checks the files of a database in dir: all tables exist, and match their
// checksums, and each log has a header.
func verify(dir string) error {
	tables, err := listTables(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return fmt.Errorf("%s: %w: %w", badger.ManifestFilename, ErrDamaged, err)
	}
	for id := range tables {
		name := table.IDToFilename(id)
		if err := verifyTable(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("table %s: %w: %w", name, ErrDamaged, err)
		}
	}
	return verifyLogs(dir)
}

// listTables returns the numbers of the tables.
func listTables(manifest string) (map[uint64]badger.TableManifest, error) {
	f, err := os.Open(manifest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// A power cut may have left a part of a change at the end.
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(""))
	return m.Tables, err
}

func verifyLogs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if ext := filepath.Ext(e.Name()); (ext == ".mem" || ext == ".vlog") && info.Size() < logHeader {
			return fmt.Errorf("log %s of %d bytes: %w", e.Name(), info.Size(), ErrDamaged)
		}
	}
	return nil
}

// verifyTable checks the index of a table, which is at its end, and its blocks.
func verifyTable(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	rest, sum, err := cutChecksum(b)
	if err != nil {
		return fmt.Errorf("checksum of the index: %w", err)
	}
	rest, length, err := cutLength(rest)
	if err != nil || length > len(rest) || length == 0 {
		return fmt.Errorf("index of %d bytes in a table of %d", length, len(b))
	}
	blocks, raw := rest[:len(rest)-length], rest[len(rest)-length:]
	if err := matches(raw, sum); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	index := fb.GetRootAsTableIndex(raw, 0)
	if index.OffsetsLength() == 0 {
		return errors.New("index without blocks")
	}
	var at fb.BlockOffset
	for i := range index.OffsetsLength() {
		if !index.Offsets(&at, i) {
			return fmt.Errorf("index without block %d", i)
		}
		from, n := int(at.Offset()), int(at.Len())
		if from+n > len(blocks) {
			return fmt.Errorf("block %d of %d bytes at %d of %d", i, n, from, len(blocks))
		}
		data, sum, err := cutChecksum(blocks[from : from+n])
		if err == nil {
			err = matches(data, sum)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}
	return nil
}

// cutChecksum cuts a checksum, which its length follows, from the end of b.
func cutChecksum(b []byte) (rest []byte, sum *pb.Checksum, err error) {
	b, length, err := cutLength(b)
	if err != nil || length > len(b) {
		return nil, nil, fmt.Errorf("%d bytes of %d", length, len(b))
	}
	sum = new(pb.Checksum)
	if err := proto.Unmarshal(b[len(b)-length:], sum); err != nil {
		return nil, nil, err
	}
	return b[:len(b)-length], sum, nil
}

// cutLength cuts a length from the end of b.
func cutLength(b []byte) (rest []byte, length int, err error) {
	if len(b) < 4 {
		return nil, 0, errors.New("no room for a length")
	}
	rest = b[:len(b)-4]
	return rest, int(binary.BigEndian.Uint32(b[len(rest):])), nil
}

func matches(b []byte, sum *pb.Checksum) error {
	if sum.Algo != pb.Checksum_CRC32C && sum.Algo != pb.Checksum_XXHash64 {
		return fmt.Errorf("checksum of kind %d", sum.Algo)
	}
	return y.VerifyChecksum(b, sum)
}
