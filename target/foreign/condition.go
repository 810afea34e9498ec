package foreign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"odx/blockdev"
	"odx/initiator"
)

// Condition is what is asked of a LUN before it is overwritten.
type Condition struct {
	// Protected: it takes no writes.
	Protected bool
	// Reserved: writes conflict with a reservation of another initiator.
	Reserved bool
	// Registered counts the initiator ports that have registered for persistent reservations.
	Registered int
	// Data: it does not read as zeros where that was looked at; DataAt is a byte there.
	Data   bool
	DataAt int64
}

const (
	// edge is how many bytes at either end are read for a Condition, where partition tables,
	// labels and file systems have theirs, and sample how many at each of samples places in
	// between.
	edge    = 1 << 20
	sample  = 64 << 10
	samples = 64
	// conflict is the status RESERVATION CONFLICT (SAM-5 5.3.1).
	conflict = 0x18
)

// Condition examines the LUN. It finds data at the first and the last MiB, and at 64 places in
// between; there may be other data.
func (d *Disk) Condition(ctx context.Context) (c Condition, err error) {
	err = d.run(ctx, 0, func(ctx context.Context, s *session) error {
		c.Protected = s.cache.Protected
		r, err := s.Reservations(ctx)
		c.Registered, c.Reserved = r.Registered, r.Held
		return err
	})
	if err == nil {
		err = d.sample(ctx, &c)
	}
	if Conflicts(err) {
		c.Reserved, err = true, nil
	}
	return c, err
}

// Conflicts reports whether an error is that another initiator has reserved the LUN.
func Conflicts(err error) bool {
	status, ok := errors.AsType[*initiator.StatusError](err)
	return ok && status.Status == conflict
}

// sample looks for data.
func (d *Disk) sample(ctx context.Context, c *Condition) error {
	g := d.Geometry()
	places := []blockdev.Range{{Length: min(edge, g.Size)}, {Offset: max(0, g.Size-edge), Length: min(edge, g.Size)}}
	block := int64(g.BlockLength)
	for i := range int64(samples) {
		at := g.Size / (samples + 1) * (i + 1) / block * block
		places = append(places, blockdev.Range{Offset: at, Length: min(sample, g.Size-at)})
	}
	p := make([]byte, edge)
	for _, r := range places {
		if err := d.ReadAt(ctx, p[:r.Length], r.Offset); err != nil {
			return err
		}
		if i := slices.IndexFunc(p[:r.Length], func(b byte) bool { return b != 0 }); i >= 0 {
			c.Data, c.DataAt = true, r.Offset+int64(i)
			return nil
		}
	}
	return nil
}

// clearStep is how many bytes are read at once where only what is no zero is overwritten.
const clearStep = 256 << 10

var clearBuffers = sync.Pool{New: func() any { return new([clearStep]byte) }}

// clear makes a range read as zeros on a target that has to be sent them: those parts that do
// already are left alone.
func (d *Disk) clear(ctx context.Context, s *session, off, length int64) error {
	buf := clearBuffers.Get().(*[clearStep]byte)
	defer clearBuffers.Put(buf)
	for length > 0 {
		n := min(length, clearStep)
		err := s.ReadAt(ctx, buf[:n], off)
		sense, damaged := errors.AsType[*initiator.SenseError](err)
		if damaged = damaged && sense.Key == keyMediumError; err != nil && !damaged {
			return fmt.Errorf("whether it is zeros: %w", err)
		}
		if damaged || !isZero(buf[:n]) {
			if err := d.wrote(s, s.Zero(ctx, off, n)); err != nil {
				return err
			}
		}
		off, length = off+n, length-n
	}
	return nil
}

func isZero(p []byte) bool { return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }
