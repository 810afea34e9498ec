// Package doctor diagnoses why a copy between two LUNs is not offloaded. It performs
// the checks of an initiator in the same order: the 3PC bit, the list of VPD pages,
// page 8Fh as Windows reads it, then a token of the source used at the destination. It
// is an initiator, so it can examine any target.
package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"odx/initiator"
)

// Finding is the result of one check.
type Finding struct {
	// LUN is the URL of the examined LUN, without secrets, or empty for a check of the
	// pair.
	LUN   string
	Check string
	OK    bool
	// Detail is the observed result.
	Detail string
	// Advice is what to do if OK is false.
	Advice string
}

// Pair is two LUNs to examine.
type Pair struct {
	Source, Destination initiator.URL
	// Initiator is the iSCSI name to log in with, empty for the default. The access
	// that a server grants depends on it.
	Initiator string
	// Scratch is a range of bytes of the destination that may be overwritten. If the
	// length is 0, the destination is not modified: the token is used to write 0
	// blocks.
	ScratchOffset, ScratchLength int64
}

// Examine checks the pair and reports each finding. ok reports that a copy is
// offloaded. The error is that of closing a session, or of ctx.
func Examine(ctx context.Context, p Pair, emit func(Finding)) (ok bool, err error) {
	e := examination{ctx: ctx, initiator: p.Initiator, emit: emit, ok: true}
	src := e.open(p.Source)
	if src != nil {
		defer func() { err = errors.Join(err, src.Close()) }()
		e.disk(p.Source, src)
	}
	dst := e.open(p.Destination)
	if dst != nil {
		defer func() { err = errors.Join(err, dst.Close()) }()
		e.disk(p.Destination, dst)
	}
	if src != nil && dst != nil {
		e.copy(p, src, dst)
	}
	return e.ok, ctx.Err()
}

type examination struct {
	ctx       context.Context
	initiator string
	emit      func(Finding)
	ok        bool
}

// report reports a finding. good is the detail if err is nil.
func (e *examination) report(u *initiator.URL, check, good string, err error, advice string) {
	f := Finding{Check: check, OK: err == nil, Detail: good}
	if u != nil {
		f.LUN = u.String()
	}
	if err != nil {
		f.Detail, f.Advice = err.Error(), advice
		e.ok = false
	}
	e.emit(f)
}

func (e *examination) open(u initiator.URL) *initiator.Disk {
	d, err := initiator.Open(e.ctx, initiator.Options{URL: u, InitiatorName: e.initiator})
	if err != nil {
		e.report(&u, "log in", "", err, "check the address, the target name, the LUN and the server's access rules for this initiator")
		return nil
	}
	e.report(&u, "log in", fmt.Sprintf("%d blocks of %d bytes", d.Blocks, d.BlockLength), nil, "")
	return d
}

// disk checks the INQUIRY data and VPD pages of a LUN.
func (e *examination) disk(u initiator.URL, d *initiator.Disk) {
	var err error
	if !d.ThirdPartyCopy {
		err = errors.New("the 3PC bit of the standard INQUIRY data is 0")
	}
	e.report(&u, "3PC bit of INQUIRY", "3PC is 1", err, "the LUN does not support third-party copy; check that odx serves it")

	pages, err := d.VPD(e.ctx, 0x00)
	if err == nil {
		err = checkPages(pages[4:])
	}
	e.report(&u, "list of VPD pages", "in order, with 8Fh", err, "Windows disables ODX for a LUN whose list is not ascending or lacks 8Fh or B0h")

	limits, err := readLimits(e.ctx, d)
	good := ""
	if err == nil {
		good = fmt.Sprintf("up to %d ranges and %d blocks per token, optimal %d blocks", limits.MaxRanges, limits.MaxTokenTransferSize, limits.OptimalTransferCount)
	}
	e.report(&u, "page 8Fh as Windows reads it", good, err, "Windows accepts the block device ROD limits only as the first descriptor, 20h bytes long")
}

// checkPages checks a list of VPD page codes.
func checkPages(codes []byte) error {
	for i := 1; i < len(codes); i++ {
		if codes[i] <= codes[i-1] {
			return fmt.Errorf("page %02Xh follows page %02Xh", codes[i], codes[i-1])
		}
	}
	for _, needed := range []byte{0x8f, 0xb0} {
		if !bytes.Contains(codes, []byte{needed}) {
			return fmt.Errorf("page %02Xh is missing", needed)
		}
	}
	return nil
}

// windowsAllocation is the ALLOCATION LENGTH with which Windows reads page 8Fh.
const windowsAllocation = 255

// readLimits reads page 8Fh like the class driver of Windows.
func readLimits(ctx context.Context, d *initiator.Disk) (initiator.TokenLimits, error) {
	p, err := d.VPDPart(ctx, 0x8f, windowsAllocation)
	if err != nil {
		return initiator.TokenLimits{}, err
	}
	be := binary.BigEndian
	if len(p) < 40 || be.Uint16(p[4:]) != 0 || be.Uint16(p[6:]) != 0x20 {
		return initiator.TokenLimits{}, errors.New("the first descriptor is not the block device ROD limits of 20h bytes")
	}
	l, ok := d.TokenLimits()
	if !ok {
		return l, initiator.ErrNoOffload
	}
	if l.MaxTokenTransferSize > 0 && l.OptimalTransferCount > l.MaxTokenTransferSize {
		return l, fmt.Errorf("OPTIMAL TRANSFER COUNT %d is above MAXIMUM TOKEN TRANSFER SIZE %d", l.OptimalTransferCount, l.MaxTokenTransferSize)
	}
	return l, nil
}

// copy creates a token of the source and uses it at the destination.
func (e *examination) copy(p Pair, src, dst *initiator.Disk) {
	length := p.ScratchLength
	if length == 0 {
		length = min(1<<20, src.Size())
	}
	began := time.Now()
	t, represented, err := src.PopulateToken(e.ctx, 0, min(length, src.Size()))
	e.report(&p.Source, "create a token (POPULATE TOKEN)", fmt.Sprintf("represents %d bytes", represented), inTime(began, err), adviceFor(err))
	if err != nil {
		return
	}
	began = time.Now()
	if p.ScratchLength == 0 {
		_, err = dst.WriteUsingToken(e.ctx, t, 0, 0, 0)
		e.report(nil, "use the token at the destination (WRITE USING TOKEN of 0 blocks)", "accepted", inTime(began, err), adviceFor(err))
		return
	}
	err = e.copyScratch(p, src, dst, t, represented)
	e.report(nil, "copy by token and compare", fmt.Sprintf("%d bytes are equal", represented), err, adviceFor(err))
	// The destination must reject a modified token, or copies can have wrong data.
	forged := *t
	rand.Read(forged[256:])
	if _, err := dst.WriteUsingToken(e.ctx, &forged, 0, p.ScratchOffset, int64(dst.BlockLength)); err == nil {
		e.report(nil, "reject a forged token", "", errors.New("accepted"), "do not copy by token with this target")
		return
	}
	e.report(nil, "reject a forged token", "rejected", nil, "")
}

// windowsTimeout is the time that Windows waits for a command that copies by token.
const windowsTimeout = 4 * time.Second

// inTime returns err, or an error if the response took longer than windowsTimeout.
func inTime(began time.Time, err error) error {
	if took := time.Since(began); err == nil && took > windowsTimeout {
		return fmt.Errorf("the response took %v, Windows waits for %v", took.Round(time.Millisecond), windowsTimeout)
	}
	return err
}

func (e *examination) copyScratch(p Pair, src, dst *initiator.Disk, t *initiator.Token, length int64) error {
	for done := int64(0); done < length; {
		began := time.Now()
		n, err := dst.WriteUsingToken(e.ctx, t, done, p.ScratchOffset+done, length-done)
		if err := inTime(began, err); err != nil {
			return err
		}
		done += n
	}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for done := int64(0); done < length; done += int64(len(a)) {
		a, b := a[:min(int64(len(a)), length-done)], b[:min(int64(len(b)), length-done)]
		if err := src.ReadAt(e.ctx, a, done); err != nil {
			return fmt.Errorf("read the source: %w", err)
		}
		if err := dst.ReadAt(e.ctx, b, p.ScratchOffset+done); err != nil {
			return fmt.Errorf("read the destination: %w", err)
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("the data differs between %d and %d; check that nothing writes to the source", done, done+int64(len(a)))
		}
	}
	return nil
}
