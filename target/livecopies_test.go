package target

import (
	"bytes"
	"encoding/binary"
	"testing"

	"odx/blockdev"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// copyDisks has two targets, so that a copy between them needs the sessions of both.
const copyDisks = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:one
    luns: [{lun: 0, volume: src, size: 64MiB}]
  - name: iqn.2026-11.example.odx:two
    luns: [{lun: 7, volume: dst, size: 64MiB}]
`

const (
	copiedBytes = 60 << 20
	// copiedTo is not aligned to the blocks of the store, so that bytes are moved.
	copiedTo = 3 // blocks
	copyID   = 42
)

// TestService_Suspend_BackgroundCopy: a copy in the background goes on over handovers that
// fail, after which this process goes on, and over those that do not. Its report is that of
// a running copy, and in the end it has the whole count and every byte.
func TestService_Suspend_BackgroundCopy(t *testing.T) {
	be := binary.BigEndian
	for name, tc := range map[string]struct {
		begin func(t *testing.T, src, dst *client.Session) (by *client.Session)

		units uint64 // of the count, bytes
	}{
		"WRITE USING TOKEN": {func(t *testing.T, src, dst *client.Session) *client.Session {
			populate := make([]byte, 32)
			populate[1], populate[15] = 30, 16
			be.PutUint32(populate[24:], copiedBytes/512)
			must.Succeed(t, run(t, src, []byte{0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 32, 0, 0}, populate))
			token := &client.Command{CDB: []byte{0x84, 0x07, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, In: make([]byte, 1024)}
			must.Succeed(t, src.Do(t.Context(), token))
			list := make([]byte, 552)
			be.PutUint16(list, 550)
			list[2] = 1 // IMMED
			copy(list[16:528], token.In[38:550])
			list[535] = 16
			be.PutUint64(list[536:], copiedTo)
			be.PutUint32(list[544:], copiedBytes/512)
			must.Succeed(t, dst.Do(t.Context(), &client.Command{CDB: []byte{0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, copyID, 0, 0, 552 >> 8, 552 & 0xFF, 0, 0}, Out: list}))
			return dst
		}, 512},
		"EXTENDED COPY between targets": {func(t *testing.T, src, dst *client.Session) *client.Session {
			list := make([]byte, 48+32+32)
			list[0], list[3], list[15], list[16] = 1, 0x20, 1, 0xFF
			be.PutUint32(list[20:], copyID)
			list[43], list[45] = 32, 32
			page := &client.Command{CDB: []byte{0x12, 1, 0x83, 1, 0, 0}, In: make([]byte, 256)}
			must.Succeed(t, dst.Do(t.Context(), page))
			list[48] = 0xE4
			copy(list[52:], page.In[4:8+page.In[7]])
			list[78] = 512 >> 8
			segment := list[80:]
			segment[0], segment[3] = 0x0A, 28
			be.PutUint16(segment[4:], 0xFFFF)
			segment[7] = 1
			be.PutUint32(segment[8:], copiedBytes)
			be.PutUint64(segment[20:], copiedTo)
			must.Succeed(t, run(t, src, []byte{0x83, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}, list))
			return src
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := parse(t, t.TempDir(), copyDisks)
			s, err := Start(t.Context(), cfg, logs.Discard())
			must.Succeed(t, err)
			defer func() { stop(t, s) }()
			open := func(target int) *client.Session {
				c := dial(t, s.LUNs()[target].URLs[0], "iqn.2026-11.example:host")
				t.Cleanup(func() { c.Close() })
				for c.Do(t.Context(), &client.Command{CDB: make([]byte, 6)}) != nil { // unit attentions
				}
				return c
			}
			data := random(1, copiedBytes)
			volume := func(name string) blockdev.Volume {
				return s.state.Load().unit("volume " + name).Volume()
			}
			must.Succeed(t, volume("src").WriteAt(t.Context(), data, 0))
			src, dst := open(0), open(1)
			by := tc.begin(t, src, dst)
			count := uint64(0)
			status := func() byte {
				t.Helper()
				report := &client.Command{CDB: []byte{0x84, 0x05, 0, 0, 0, copyID, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, In: make([]byte, 256)}
				must.Succeed(t, by.Do(t.Context(), report))
				n := be.Uint64(report.In[16:])
				if n < count {
					t.Errorf("%d units are counted after %d", n, count)
				}
				count = n
				return report.In[5]
			}
			running := 0
			for range 5 {
				if status() != 0x12 {
					break
				}
				running++
				next, held, err := Inherit(t.Context(), cfg, logs.Discard(), suspend(t, s), nil)
				must.Succeed(t, err, held.Close())
				s = next
			}
			if running == 0 { // how many depends on the machine
				t.Fatal("no handover of a running copy")
			}
			last := status()
			for last == 0x12 {
				last = status()
			}
			if want := uint64(copiedBytes) / tc.units; last != 0x01 || count != want {
				t.Errorf("status %02Xh with %d, want 01h with %d", last, count, want)
			}
			got := make([]byte, copiedBytes)
			must.Succeed(t, volume("dst").ReadAt(t.Context(), got, copiedTo*512))
			if !bytes.Equal(got, data) {
				t.Error("the copy differs")
			}
			if n := s.copies.Stats().Aborted; n != 0 {
				t.Errorf("%d copies aborted", n)
			}
		})
	}
}
