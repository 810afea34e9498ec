package scsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

// eraseRecord is the key of the record of an erasure that has not ended.
const eraseRecord = "erase"

// erasureKind is a command that erases the whole medium: a sanitize operation (SBC-3
// 4.11) or a format (SBC-3 4.10).
type erasureKind struct {
	name string
	code byte // in the record
	// inProgress ends other commands during the erasure, failed the command itself if
	// it waited, and after the commands that follow a failure.
	inProgress, failed, after sense.ASC
}

var (
	sanitizeErasure = &erasureKind{"SANITIZE", 's', sense.ASCSanitizeInProgress, sense.ASCSanitizeCommandFailed, sense.ASCSanitizeCommandFailed}
	formatErasure   = &erasureKind{"FORMAT UNIT", 'f', sense.ASCFormatInProgress, sense.ASCFormatCommandFailed, sense.ASCMediumFormatCorrupted}
)

// erasure is one erasure, while it runs and after it has failed.
type erasure struct {
	kind *erasureKind
	// unrestricted permits EXIT FAILURE MODE after a failure (AUSE).
	unrestricted bool
	progress     atomic.Uint32 // of 65536
	done         chan struct{} // closed when it has ended
	err          error         // cause of the failure, set before done is closed
}

// ended reports whether the erasure has ended.
func (e *erasure) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// sense returns the sense data of commands to the medium during and after the erasure.
func (e *erasure) sense() *sense.Error {
	if e.ended() {
		return sense.New(sense.KeyMediumError, e.kind.after)
	}
	se := sense.New(sense.KeyNotReady, e.kind.inProgress)
	se.SenseKeySpecific[0] = 0x80 // SKSV: a progress indication (SPC-4 r37 4.5.2.4.4)
	binary.BigEndian.PutUint16(se.SenseKeySpecific[1:], uint16(min(e.progress.Load(), 0xFFFF)))
	return se
}

// encode returns the record of the erasure.
func (e *erasure) encode() []byte {
	if e.unrestricted {
		return []byte{e.kind.code, 1}
	}
	return []byte{e.kind.code, 0}
}

// eraser erases the medium in the background. Neither task management nor the loss of a
// nexus ends an erasure; a restart interrupts it.
type eraser struct {
	lu     *LogicalUnit
	ctx    context.Context
	cancel context.CancelFunc
	// current is the erasure that blocks commands to the medium, or nil.
	current atomic.Pointer[erasure]

	mu     sync.Mutex // serializes start, exitFailure and close
	closed bool
}

// init resumes an erasure that a restart interrupted.
func (r *eraser) init(lu *LogicalUnit) error {
	r.lu = lu
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if lu.config.Records == nil {
		return nil
	}
	record, err := lu.config.Records.Load(eraseRecord)
	if err != nil || record == nil {
		return err
	}
	for _, kind := range []*erasureKind{sanitizeErasure, formatErasure} {
		if len(record) == 2 && record[0] == kind.code {
			r.run(&erasure{kind: kind, unrestricted: record[1] != 0, done: make(chan struct{})})
			return nil
		}
	}
	return fmt.Errorf("record of an erasure: % x is none", record)
}

// save writes the record of an erasure, or removes it (nil).
func (r *eraser) save(ctx context.Context, record []byte) error {
	if r.lu.config.Records == nil {
		return nil
	}
	return r.lu.config.Records.Save(ctx, eraseRecord, record)
}

// start starts an erasure. From then on no command reaches the medium.
func (r *eraser) start(ctx context.Context, e *erasure) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return blockdev.ErrClosed
	}
	if other := r.current.Load(); other != nil && !other.ended() {
		return other.sense()
	}
	if err := r.save(ctx, e.encode()); err != nil {
		return err
	}
	e.done = make(chan struct{})
	r.run(e)
	return nil
}

// run erases in the background.
func (r *eraser) run(e *erasure) {
	r.current.Store(e)
	go func() {
		defer close(e.done)
		if e.err = r.erase(e); e.err != nil {
			return
		}
		if e.err = r.save(r.ctx, nil); e.err == nil {
			r.current.Store(nil)
		}
	}()
}

// eraseStep is the minimum length of one step in bytes.
const eraseStep = 64 << 20

// erase unmaps the whole medium, so that it reads as zeros.
func (r *eraser) erase(e *erasure) error {
	size := int64(r.lu.Blocks()) << r.lu.blockShift
	step := max(eraseStep, (size>>16+blockdev.BlockLength)&^(blockdev.BlockLength-1))
	for off := int64(0); off < size; off += step {
		e.progress.Store(uint32(float64(off) / float64(size) * 65536))
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.lu.Volume().Unmap(r.ctx, off, min(step, size-off)); err != nil {
			return err
		}
	}
	return r.lu.Volume().Flush(r.ctx)
}

// wait waits for the end of e and returns the error for the command that started it.
func (e *erasure) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-e.done:
	}
	if e.err == nil {
		return nil
	}
	se := *sense.New(sense.KeyMediumError, e.kind.failed)
	se.Err = fmt.Errorf("%s: %w", e.kind.name, e.err)
	return &se
}

// exitFailure ends the failure state of the given kind.
func (r *eraser) exitFailure(ctx context.Context, kind *erasureKind) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.current.Load()
	switch {
	case e == nil || e.kind != kind:
		return nil
	case !e.ended() || !e.unrestricted:
		return e.sense()
	}
	if err := r.save(ctx, nil); err != nil {
		return err
	}
	r.current.Store(nil)
	return nil
}

// close interrupts an erasure and waits until it has stopped, or until ctx ends.
func (r *eraser) close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	e := r.current.Load()
	r.mu.Unlock()
	r.cancel()
	if e == nil {
		return nil
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s still running: %w", e.kind.name, ctx.Err())
	}
}

// Ready returns the sense data that an access to the medium currently ends with, or
// nil. The device server checks a command before it is prepared; a copy manager calls
// Ready for the other logical units of its command.
func (lu *LogicalUnit) Ready() error {
	if e := lu.eraser.current.Load(); e != nil {
		return e.sense()
	}
	return lu.absent()
}

// ready returns the sense data that currently prevents an operation, or nil.
func (lu *LogicalUnit) ready(op *Operation) error {
	if e := lu.eraser.current.Load(); e != nil && (op.Medium || op.Access == AccessWrite) {
		// An operation that can repair a failure may run.
		if !op.Erases || !e.ended() {
			return e.sense()
		}
		return nil
	}
	if !op.Medium {
		return nil
	}
	return lu.Ready()
}
