//go:build e2e

package survival

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	client "odx/initiator"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

const (
	handedBytes = 256 << 20
	handedTo    = 3 // block; not aligned to those of the store, so that bytes are moved
	handedID    = 42
	// leastHandovers is over how many handovers a copy has to run for a test to prove
	// anything.
	leastHandovers = 2
)

// TestHandover_BackgroundCopies hands over, to a process each time, while the target copies
// after the status of WRITE USING TOKEN or EXTENDED COPY. The copy goes on in the session and
// with the list identifier that it has; the count never goes back, and is whole in the end; and
// every byte is there.
func TestHandover_BackgroundCopies(t *testing.T) {
	harness.RequireODX(t)
	for name, c := range map[string]handedCopy{
		"WRITE USING TOKEN": {begin: beginTokenWrite, lun: 1, unit: 512},
		"EXTENDED COPY":     {begin: beginExtendedCopy, lun: 0, unit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			size := int64(handedBytes + 1<<20)
			target := harness.Serve(t, kit.LUN{Size: size}, kit.LUN{Size: size})
			data := make([]byte, handedBytes)
			rand.NewChaCha8([32]byte{1}).Read(data)
			source := openDisk(t, target, 0)
			harness.Must(t, source.WriteAt(t.Context(), data, 0))
			var by [2]*client.Session
			for lun := range by {
				by[lun] = openSession(t, target, lun)
			}
			c.begin(t, by[0], by[1])
			over := c.handOver(t, target, by[c.lun])
			got := make([]byte, handedBytes)
			harness.Must(t, openDisk(t, target, 1).ReadAt(t.Context(), got, handedTo*512))
			if !bytes.Equal(got, data) {
				t.Error("the copy differs from its source")
			}
			harness.Must(t, target.CheckStore(t.Context()))
			if t.Logf("it ran over %d handovers", over); over < leastHandovers {
				t.Error("too few to prove anything")
			}
		})
	}
}

// handedCopy is a copy in the background.
type handedCopy struct {
	begin func(t *testing.T, source, destination *client.Session)
	lun   int    // to which the command is sent
	unit  uint64 // of the count, bytes
}

// handOver hands over until the copy has ended, and returns over how many handovers it ran.
func (c *handedCopy) handOver(t *testing.T, target *kit.Target, by *client.Session) (over int) {
	t.Helper()
	const running, done = 0x12, 0x01
	last, count := c.look(t, by)
	for last == running {
		if over < 4*leastHandovers { // it may end then
			harness.Must(t, target.Handover(t.Context()))
		}
		status, n := c.look(t, by)
		if n < count {
			t.Errorf("%d is counted after %d", n, count)
		}
		if status == running && over < 4*leastHandovers {
			over++
		}
		last, count = status, n
	}
	if want := uint64(handedBytes) / c.unit; last != done || count != want {
		t.Errorf("status %02Xh with %d, want %02Xh with %d", last, count, done, want)
	}
	return over
}

// look returns the status and the count of RECEIVE COPY STATUS(LID4).
func (c *handedCopy) look(t *testing.T, by *client.Session) (status byte, count uint64) {
	t.Helper()
	report := &client.Command{CDB: []byte{0x84, 0x05, 0, 0, 0, handedID, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, In: make([]byte, 256)}
	harness.Must(t, by.Do(t.Context(), report))
	return report.In[5], binary.BigEndian.Uint64(report.In[16:])
}

func beginTokenWrite(t *testing.T, source, destination *client.Session) {
	t.Helper()
	be := binary.BigEndian
	populate := make([]byte, 32)
	populate[1], populate[15] = 30, 16
	be.PutUint32(populate[24:], handedBytes/512)
	harness.Must(t, source.Do(t.Context(), &client.Command{CDB: []byte{0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 32, 0, 0}, Out: populate}))
	token := &client.Command{CDB: []byte{0x84, 0x07, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, In: make([]byte, 1024)}
	harness.Must(t, source.Do(t.Context(), token))
	list := make([]byte, 552)
	be.PutUint16(list, 550)
	list[2] = 1 // IMMED
	copy(list[16:528], token.In[38:550])
	list[535] = 16
	be.PutUint64(list[536:], handedTo)
	be.PutUint32(list[544:], handedBytes/512)
	harness.Must(t, destination.Do(t.Context(), &client.Command{CDB: []byte{0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, handedID, 0, 0, 552 >> 8, 552 & 0xFF, 0, 0}, Out: list}))
}

func beginExtendedCopy(t *testing.T, source, destination *client.Session) {
	t.Helper()
	be := binary.BigEndian
	list := make([]byte, 48+32+32)
	list[0], list[3], list[15], list[16] = 1, 0x20, 1, 0xFF
	be.PutUint32(list[20:], handedID)
	list[43], list[45] = 32, 32
	page := &client.Command{CDB: []byte{0x12, 1, 0x83, 1, 0, 0}, In: make([]byte, 256)}
	harness.Must(t, destination.Do(t.Context(), page))
	list[48] = 0xE4
	copy(list[52:], page.In[4:8+page.In[7]])
	list[78] = 512 >> 8
	segment := list[80:]
	segment[0], segment[3] = 0x0A, 28
	be.PutUint16(segment[4:], 0xFFFF)
	segment[7] = 1
	be.PutUint32(segment[8:], handedBytes)
	be.PutUint64(segment[20:], handedTo)
	harness.Must(t, source.Do(t.Context(), &client.Command{CDB: []byte{0x83, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}, Out: list}))
}

// openDisk opens a LUN for reading and writing.
func openDisk(t *testing.T, target *kit.Target, lun int) *client.Disk {
	t.Helper()
	u, err := client.ParseURL(target.URL(lun))
	harness.Must(t, err)
	d, err := client.Open(t.Context(), client.Options{URL: u, InitiatorName: "iqn.2026-11.example:data"})
	harness.Must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// openSession opens a LUN for commands, and takes its unit attentions.
func openSession(t *testing.T, target *kit.Target, lun int) *client.Session {
	t.Helper()
	u, err := client.ParseURL(target.URL(lun))
	harness.Must(t, err)
	c, err := client.Dial(t.Context(), client.Options{URL: u, InitiatorName: "iqn.2026-11.example:copies"})
	harness.Must(t, err)
	t.Cleanup(func() { c.Close() })
	for c.Do(context.Background(), &client.Command{CDB: make([]byte, 6)}) != nil { // unit attentions
		harness.Must(t, t.Context().Err())
	}
	return c
}
