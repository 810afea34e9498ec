package scsi

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"odx/backstore"
	"odx/target/scsi/sense"
)

func sanitizeCDB(flags, action byte, length uint16) []byte {
	return []byte{0x48, flags | action, 0, 0, 0, 0, 0, byte(length >> 8), byte(length), 0}
}

var (
	blockErase      = sanitizeCDB(0, sanitizeBlockErase, 0)
	blockEraseLater = sanitizeCDB(sanitizeIMMED, sanitizeBlockErase, 0)
	exitFailureMode = sanitizeCDB(0, sanitizeExitFailureMode, 0)
	formatUnit      = []byte{0x04, 0, 0, 0, 0, 0}
	formatWithList  = []byte{0x04, formatData, 0, 0, 0, 0}
)

// memRecords keeps records in memory.
type memRecords map[string][]byte

func (r memRecords) Load(key string) ([]byte, error) { return r[key], nil }

func (r memRecords) Save(_ context.Context, key string, value []byte) error {
	r[key] = value
	if value == nil {
		delete(r, key)
	}
	return nil
}

// erasableVolume is a volume whose Unmap says that it began, and ends with what
// the test sends it, or with its context.
type erasableVolume struct {
	*memVolume
	began chan struct{}
	end   chan error
}

func newErasableVolume() *erasableVolume {
	return &erasableVolume{newMemVolume(testBlocks * 512), make(chan struct{}), make(chan error)}
}

func (v *erasableVolume) Unmap(ctx context.Context, off, length int64) error {
	select {
	case v.began <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-v.end:
		if err != nil {
			return err
		}
		return v.memVolume.Unmap(ctx, off, length)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newErasableFixture(t *testing.T) (*fixture, *erasableVolume, memRecords) {
	v, records := newErasableVolume(), memRecords{}
	return newFixture(t, func(c *LUConfig) { c.Volume, c.Records = v, records }), v, records
}

func TestErase_Deallocates(t *testing.T) {
	for name, cdb := range map[string][]byte{"SANITIZE": blockErase, "FORMAT UNIT": formatUnit} {
		t.Run(name, func(t *testing.T) {
			f, store := newStoreFixture(t, backstore.Options{}, 4<<20)
			f.good(cdb16(0x8A, 0, 0, 2048), pattern(1<<20, 3))
			f.good(cdb16(0x8A, 0, 8191, 1), pattern(512, 4))
			f.good(cdb, nil)
			if got := f.good(cdb16(0x88, 0, 0, 8192), nil); !isZero(got) {
				t.Error("data left")
			}
			wantHex(t, f.good(getLBAStatus(0, 24), nil), "00000014 00000000  0000000000000000 00002000 01 000000")
			if err := store.Clean(t.Context()); err != nil {
				t.Fatal(err)
			}
			if live, files := store.LiveBytes(), store.PhysicalBytes(); live != 0 || files != 0 {
				t.Errorf("%d bytes are in use, %d are in files", live, files)
			}
			f.good(cdb16(0x8A, 0, 0, 1), pattern(512, 5))
		})
	}
}

func TestSanitize_Refused(t *testing.T) {
	f := newFixture(t)
	f.good(cdb16(0x8A, 0, 0, 1), pattern(512, 1))
	for action := range byte(32) {
		switch action {
		case sanitizeBlockErase, sanitizeExitFailureMode:
			continue
		}
		r := f.do(sanitizeCDB(0, action, 0), nil)
		r.wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
		wantHex(t, r.sense[15:], "cc 0001") // the service action
	}
	for _, action := range []byte{sanitizeBlockErase, sanitizeExitFailureMode} {
		f.do(sanitizeCDB(0x40, action, 0), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
		f.do(sanitizeCDB(0, action, 8), make([]byte, 8)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
		for i := 2; i < 7; i++ {
			cdb := sanitizeCDB(0, action, 0)
			cdb[i] = byte(i)
			f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
		}
	}
	if got := f.good(cdb16(0x88, 0, 0, 1), nil); !bytes.Equal(got, pattern(512, 1)) {
		t.Error("a refused command erased")
	}
	thick := newFixture(t, func(c *LUConfig) { c.Thin = false })
	thick.do(blockErase, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
	readOnly := newFixture(t, func(c *LUConfig) { c.ReadOnly = true })
	for _, cdb := range [][]byte{blockErase, blockEraseLater, formatUnit} {
		readOnly.do(cdb, nil).wantSense(t, sense.KeyDataProtect, sense.ASCWriteProtected)
	}
}

func TestFormatUnit_ParameterList(t *testing.T) {
	long := []byte{0x04, formatData | formatLongList, 0, 0, 0, 0}
	f := newFixture(t)
	for name, tt := range map[string]struct {
		cdb, list []byte
		pointer   string // of the sense data; empty: GOOD
	}{
		"no list":                    {formatUnit, nil, ""},
		"short":                      {formatWithList, []byte{0, 0, 0, 0}, ""},
		"short, options":             {formatWithList, []byte{0, 0xF0, 0, 0}, ""},
		"long, complete list":        {[]byte{0x04, 0x38, 0, 0, 0, 0}, make([]byte, 8), ""},
		"protection information":     {[]byte{0x04, 0x80, 0, 0, 0, 0}, nil, "cf 0001"},
		"long list without list":     {[]byte{0x04, 0x20, 0, 0, 0, 0}, nil, "cd 0001"},
		"protection field usage":     {formatWithList, []byte{1, 0, 0, 0}, "8a 0000"},
		"options without FOV":        {formatWithList, []byte{0, 0x20, 0, 0}, "8e 0001"},
		"initialization pattern":     {formatWithList, []byte{0, 0x88, 0, 0}, "8b 0001"},
		"defect list":                {formatWithList, []byte{0, 0, 0, 8}, "8f 0002"},
		"long, defect list":          {long, []byte{0, 0, 0, 0, 0, 0, 0, 8}, "8f 0004"},
		"long, protection intervals": {long, []byte{0, 0, 0, 1, 0, 0, 0, 0}, "8b 0003"},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.do(tt.cdb, tt.list)
			if tt.pointer == "" {
				r.wantStatus(t, StatusGood)
				return
			}
			if r.key != sense.KeyIllegalRequest {
				t.Fatalf("status %02Xh, %s", r.status, r.key)
			}
			wantHex(t, r.sense[15:], tt.pointer)
		})
	}
	f.do(formatWithList, []byte{0, 0}).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
}

// erasures are the commands that erase the medium in the background, and what others are
// answered while they do.
var erasures = map[string]struct {
	cdb, out []byte
	asc      sense.ASC
}{
	"SANITIZE":    {blockEraseLater, nil, sense.ASCSanitizeInProgress},
	"FORMAT UNIT": {formatWithList, []byte{0, formatIMMED, 0, 0}, sense.ASCFormatInProgress},
}

// While the medium is erased, its commands end with how far that is; resets and
// the end of the nexus change nothing about it.
func TestErase_OtherCommands(t *testing.T) {
	for name, tt := range erasures {
		t.Run(name, func(t *testing.T) {
			f, v, records := newErasableFixture(t)
			f.good(tt.cdb, tt.out)
			<-v.began
			if len(records) != 1 {
				t.Error("no record")
			}
			for _, cdb := range [][]byte{testUnitReady, cdb10(0x28, 0, 0, 1), startUnit, stopUnit, modeSelect6(nil), tt.cdb, formatUnit, blockErase} {
				f.do(cdb, tt.out).wantSense(t, sense.KeyNotReady, tt.asc)
			}
			f.lu.eraser.current.Load().progress.Store(0x8000)
			se := f.good(requestSense, nil)
			if key, asc := decodeSense(t, se); key != sense.KeyNotReady || asc != tt.asc {
				t.Errorf("REQUEST SENSE: %s, %s", key, asc)
			}
			wantHex(t, se[15:], "80 8000")
			f.good(inquiryCDB(0, 0, 96), nil)
			f.good(reportLUNsCDB(0, 1024), nil)
			f.good(rsocCDB(0, 0, 0, 1024), nil)
			f.good([]byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil)
			f.target.ResetLU(f.nexus, [8]byte{})
			f.target.Detach(f.nexus)
			f.nexus = f.attach("iqn.2026-11.example.initiator:b")
			f.do(testUnitReady, nil).wantSense(t, sense.KeyNotReady, tt.asc)
			e := f.lu.eraser.current.Load()
			v.end <- nil
			<-e.done
			f.good(testUnitReady, nil)
			wantHex(t, f.good(requestSense, nil), "70 00 00 00000000 0a 00000000 0000 00 000000")
			if len(records) != 0 {
				t.Error("record left")
			}
		})
	}
}

// A command that waits for the erasure can be aborted; the erasure cannot.
func TestErase_Abort(t *testing.T) {
	f, v, _ := newErasableFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	task := NewTask(&f.pool)
	task.Reset(f.nexus, blockErase)
	if f.target.Prepare(task) {
		t.Fatal("refused")
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.target.Execute(ctx, task)
	}()
	<-v.began
	cancel()
	<-ended
	if task.Result != StatusCheckCondition {
		t.Errorf("status %02Xh", task.Result)
	}
	f.do(testUnitReady, nil).wantSense(t, sense.KeyNotReady, sense.ASCSanitizeInProgress)
	e := f.lu.eraser.current.Load()
	v.end <- nil
	<-e.done
	f.good(testUnitReady, nil)
}

// A failure keeps the medium shut until it is erased after all, or, if the
// command allowed it, until EXIT FAILURE MODE.
func TestSanitize_Failure(t *testing.T) {
	for name, tt := range map[string]struct {
		flags byte
		left  bool
	}{
		"restricted":   {0, false},
		"unrestricted": {sanitizeAUSE, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, v, records := newErasableFixture(t)
			f.good(exitFailureMode, nil) // there is none
			f.good(sanitizeCDB(sanitizeIMMED|tt.flags, sanitizeBlockErase, 0), nil)
			<-v.began
			e := f.lu.eraser.current.Load()
			v.end <- errors.New("disk on fire")
			<-e.done
			for _, cdb := range [][]byte{testUnitReady, cdb10(0x28, 0, 0, 1), cdb10(0x2A, 0, 0, 1), stopUnit} {
				f.do(cdb, nil).wantSense(t, sense.KeyMediumError, sense.ASCSanitizeCommandFailed)
			}
			f.good(inquiryCDB(0, 0, 96), nil)
			r := f.do(exitFailureMode, nil)
			if tt.left {
				r.wantStatus(t, StatusGood)
				f.good(testUnitReady, nil)
			} else {
				r.wantSense(t, sense.KeyMediumError, sense.ASCSanitizeCommandFailed)
				f.good(blockEraseLater, nil)
				<-v.began
				e := f.lu.eraser.current.Load()
				v.end <- nil
				<-e.done
				f.good(testUnitReady, nil)
			}
			if len(records) != 0 {
				t.Error("record left")
			}
		})
	}
}

func TestSanitize_FailureStatus(t *testing.T) {
	f := newFixture(t)
	f.vol.setError(errors.New("disk on fire"))
	f.do(blockErase, nil).wantSense(t, sense.KeyMediumError, sense.ASCSanitizeCommandFailed)
	f.do(testUnitReady, nil).wantSense(t, sense.KeyMediumError, sense.ASCSanitizeCommandFailed)
}

// A restart interrupts an erasure, which goes on afterwards.
func TestErase_Restart(t *testing.T) {
	for name, tt := range erasures {
		t.Run(name, func(t *testing.T) {
			f, v, records := newErasableFixture(t)
			v.data[0] = 1
			f.good(tt.cdb, tt.out)
			<-v.began
			if err := f.lu.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.do(tt.cdb, tt.out).wantSense(t, sense.KeyNotReady, sense.ASCLogicalUnitNotReady)
			f = newFixture(t, func(c *LUConfig) { c.Volume, c.Records = v, records })
			<-v.began
			f.do(testUnitReady, nil).wantSense(t, sense.KeyNotReady, tt.asc)
			e := f.lu.eraser.current.Load()
			v.end <- nil
			<-e.done
			f.good(testUnitReady, nil)
			if v.data[0] != 0 || len(records) != 0 {
				t.Errorf("byte 0 is %d, %d records", v.data[0], len(records))
			}
		})
	}
	_, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096), Records: memRecords{eraseRecord: []byte("?")}})
	if err == nil {
		t.Error("an unreadable record was accepted")
	}
}
