package tokenclient

import (
	"fmt"
	"time"
)

// Timings are how long the commands of a token copy took in all.
type Timings struct {
	Populate, Information, Write time.Duration
	Tokens, Writes               int
}

// Total is the time of all commands.
func (t Timings) Total() time.Duration { return t.Populate + t.Information + t.Write }

// OffloadTo copies blocks to another LUN by token, as a client does: as many
// tokens as the source's limits ask for, and as many writes for each as the
// destination's need, going on where one ended early.
func (s *Session) OffloadTo(to *Session, lba, toLBA, blocks uint64) (Timings, error) {
	var t Timings
	if s.BlockLength != to.BlockLength {
		return t, fmt.Errorf("blocks of %d and of %d bytes", s.BlockLength, to.BlockLength)
	}
	source, err := s.Limits()
	if err != nil {
		return t, err
	}
	destination, err := to.Limits()
	if err != nil {
		return t, err
	}
	step := s.limit(source.TransferBlocks)
	for done := uint64(0); done < blocks; {
		n := min(blocks-done, step)
		token, err := s.token(Range{lba + done, uint32(n)}, &t)
		if err != nil {
			return t, err
		}
		if err := to.spend(token, Range{toLBA + done, uint32(n)}, to.limit(destination.TransferBlocks), &t); err != nil {
			return t, err
		}
		done += n
	}
	return t, nil
}

// Token makes a token for all of a range, which one token can stand for.
func (s *Session) Token(r Range) ([]byte, error) { return s.token(r, &Timings{}) }

// Spend writes what a token stands for over a range, from its beginning, in as many commands
// as the limits of the LUN need, and goes on where one ended early.
func (s *Session) Spend(token []byte, r Range) (Timings, error) {
	var t Timings
	limits, err := s.Limits()
	if err != nil {
		return t, err
	}
	return t, s.spend(token, r, s.limit(limits.TransferBlocks), &t)
}

// limit is how many blocks a range of a command may have: no more than odx takes in
// one (MAXIMUM TRANSFER LENGTH).
func (s *Session) limit(reported uint64) uint64 {
	most := (1<<32 - 4<<20) / uint64(s.BlockLength)
	if reported == 0 || reported > most {
		return most
	}
	return reported
}

// token makes a token for the whole of r.
func (s *Session) token(r Range, t *Timings) ([]byte, error) {
	a, err := s.PopulateToken(PopulateOptions{}, r)
	if err != nil {
		return nil, err
	}
	if !a.Good() {
		return nil, fmt.Errorf("populate token of %d blocks: %v", r.Blocks, a)
	}
	info, b, err := s.TokenInformation()
	if err != nil {
		return nil, err
	}
	if !b.Good() || info.Token == nil || info.TransferCount != uint64(r.Blocks) {
		return nil, fmt.Errorf("token information: %v, operation status %02Xh, %d of %d blocks", b, info.OperationStatus, info.TransferCount, r.Blocks)
	}
	t.Populate, t.Information, t.Tokens = t.Populate+a.Elapsed, t.Information+b.Elapsed, t.Tokens+1
	return info.Token, nil
}

// spend writes the token from its beginning over r.
func (s *Session) spend(token []byte, r Range, step uint64, t *Timings) error {
	for done := uint64(0); done < uint64(r.Blocks); {
		n := min(uint64(r.Blocks)-done, step)
		a, err := s.WriteUsingToken(token, WriteTokenOptions{Offset: done}, Range{r.LBA + done, uint32(n)})
		if err != nil {
			return err
		}
		// COPY TARGET DEVICE DATA UNDERRUN says how far a write came.
		if a.Status == CheckCondition && a.Sense.ASC == 0x0d && a.Sense.ASCQ == 0x04 && a.Sense.Information > 0 && a.Sense.Information < n {
			n = a.Sense.Information
		} else if !a.Good() {
			return fmt.Errorf("write %d blocks using token: %v", n, a)
		}
		done += n
		t.Write, t.Writes = t.Write+a.Elapsed, t.Writes+1
	}
	return nil
}
