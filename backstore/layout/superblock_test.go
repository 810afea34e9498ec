package layout

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// wantLayout compares bytes with hexadecimal digits; spaces are for the reader.
func wantLayout(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if want = strings.Join(strings.Fields(want), ""); hex.EncodeToString(got) != want {
		t.Errorf("%s:\ngot  %x\nwant %s", what, got, want)
	}
}

// TestSuperblock_Encode: what stores have on disk is what docs/consistency.md says.
func TestSuperblock_Encode(t *testing.T) {
	sb := Superblock{Unit: 4, Generation: 2, Place: vfs.Place{Inode: 0x55}, OldJournal: true}
	for i := range 32 {
		sb.ID[i%16], sb.FingerprintKey[i], sb.Identity[i%16], sb.Place.FileSystem[i%16] = 0x11, byte(i), 0x33, 0x44
	}
	wantLayout(t, "superblock", sb.Encode(3), `
		6f647873746f7265 00000003 00000004
		11111111111111111111111111111111
		000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
		02f88e76
		0000000000000002 33333333333333333333333333333333
		44444444444444444444444444444444 0000000000000055
		00000001 00000000 0282bf27`)
	sb.OldJournal, sb.Shared = false, true
	if b := sb.Encode(3); b[119] != flagShared {
		t.Errorf("flags %x of a store that shares segments", b[116:120])
	}
	wantLayout(t, "superblock of format 2", sb.Encode(2), `
		6f647873746f7265 00000002 00000004
		11111111111111111111111111111111
		000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
		cbf57d1c`)
}

func FuzzSuperblock(f *testing.F) {
	sb := Superblock{Unit: 1}
	f.Add(sb.Encode(FormatVersion))
	f.Add(sb.Encode(FormatVersion + 1))
	f.Add(sb.Encode(2))
	f.Fuzz(func(t *testing.T, b []byte) {
		sb, err := DecodeSuperblock("store", b)
		version := FormatVersion
		if other := (*FormatError)(nil); errors.As(err, &other) {
			version = other.Version
		} else if err != nil {
			return
		}
		if version < OldestFormat || version > FormatVersion {
			return
		}
		if again := sb.Encode(uint32(version)); len(b) < len(again) || !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("%x decodes and encodes to %x", b, again)
		}
	})
}

// TestSuperblock_WriteBoth: where either copy cannot be written, both stay as they are.
func TestSuperblock_WriteBoth(t *testing.T) {
	const dir = "/store"
	copies := []string{dir, filepath.Join(dir, CheckpointDir)}
	for _, refused := range copies {
		for _, existing := range []bool{true, false} {
			m := vfs.NewMem()
			must.Succeed(t, m.MkdirAll(copies[1]))
			sb := Superblock{Unit: 1, Generation: 1}
			if existing {
				must.Succeed(t, sb.WriteBoth(m, dir))
			}
			before := [2][]byte{}
			for i, c := range copies {
				before[i], _ = readSuperblock(m, filepath.Join(c, SuperblockName))
			}
			m.SetHook(func(kind vfs.OpKind, name string) error {
				if kind == vfs.OpRename && filepath.Dir(name) == refused {
					return syscall.EPERM
				}
				return nil
			})
			sb.Generation, sb.Identity = 2, [16]byte{7}
			if err := sb.WriteBoth(m, dir); !errors.Is(err, syscall.EPERM) {
				t.Errorf("refused in %s: %v", refused, err)
			}
			for i, c := range copies {
				b, err := readSuperblock(m, filepath.Join(c, SuperblockName))
				if !bytes.Equal(b, before[i]) || !existing && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("refused in %s: the copy in %s has changed, or exists: %v", refused, c, err)
				}
			}
		}
	}
}
