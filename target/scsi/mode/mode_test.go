package mode

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/target/scsi/record"
	"odx/target/scsi/sense"
)

// records is a record.Store in memory.
type records map[string][]byte

func (r records) Load(key string) ([]byte, error) { return r[key], nil }

func (r records) Save(_ context.Context, key string, value []byte) error {
	r[key] = value
	return nil
}

// brokenRecords save nothing.
type brokenRecords struct{ records }

func (brokenRecords) Save(context.Context, string, []byte) error { return errors.New("disk on fire") }

// caching is the Caching mode page with byte 2.
func caching(byte2 byte) []byte { return append([]byte{0x08, 0x12, byte2}, make([]byte, 17)...) }

// control is the Control mode page with bytes 2, 4 and 5.
func control(byte2, byte4, byte5 byte) []byte {
	return []byte{0x0A, 0x0A, 0x02 | byte2, 0x10, byte4, byte5, 0, 0, 0xFF, 0xFF, 0, 0}
}

func open(t *testing.T, c Config) *Parameters {
	t.Helper()
	if c.Era == nil {
		c.Era = record.None{}
	}
	m, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A list is taken over as a whole or not at all, and says what it changed.
func TestParameters_Select(t *testing.T) {
	for name, tt := range map[string]struct {
		list       []byte
		changed    bool
		refused    sense.ASC
		wce, dense bool
	}{
		"nothing":            {nil, false, 0, true, false},
		"what there is":      {caching(0x04), false, 0, true, false},
		"one page":           {caching(0), true, 0, false, false},
		"two pages":          {append(caching(0), control(0x04, 0, 0)...), true, 0, false, true},
		"a page cut":         {caching(0)[:19], false, sense.ASCParameterListLengthError, true, false},
		"no such page":       {[]byte{0x19, 0}, false, sense.ASCInvalidFieldInParameterList, true, false},
		"good, then refused": {append(caching(0), control(0, 0, 0x01)...), false, sense.ASCInvalidFieldInParameterList, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, Config{})
			changed, err := m.Select(t.Context(), append(make([]byte, 4), tt.list...), 4)
			var refused *sense.Error
			if errors.As(err, &refused) != (tt.refused != 0) || refused != nil && refused.ASC != tt.refused {
				t.Errorf("got %v, want ASC %v", err, tt.refused)
			}
			if changed != tt.changed || m.WriteCache() != tt.wce || (m.SenseFormat() == sense.Descriptor) != tt.dense {
				t.Errorf("changed %t, WCE %t, %v", changed, m.WriteCache(), m.SenseFormat())
			}
		})
	}
}

// A write cache that is off for good is reported as that, and stays off: also where another
// configuration has saved that it is on.
func TestParameters_WriteThrough(t *testing.T) {
	kept := records{}
	if _, err := open(t, Config{Records: kept}).Save(t.Context(), caching(0x04), 0); err != nil {
		t.Fatal(err)
	}
	m := open(t, Config{Records: kept, WriteThrough: true})
	_, err := m.Select(t.Context(), caching(0x04), 0)
	var refused *sense.Error
	if !errors.As(err, &refused) || refused.ASC != sense.ASCInvalidFieldInParameterList || m.WriteCache() {
		t.Errorf("WCE %t after %v", m.WriteCache(), err)
	}
	for _, control := range []byte{pcCurrent, pcChangeable, pcDefault, pcSaved} {
		p, err := m.Sense([]byte{0x1A, 0, control<<6 | 0x08, 0, 255, 0})
		if err != nil || p[2]&cachingWCE != 0 {
			t.Errorf("page control %d: % x, %v", control, p, err)
		}
	}
	if _, err := m.Select(t.Context(), caching(0), 0); err != nil {
		t.Errorf("what there is: %v", err)
	}
	if !open(t, Config{}).WriteCache() {
		t.Error("the pages of other logical units have changed")
	}
}

// Saved values are what a reset and a restart give, others are not.
func TestParameters_Save(t *testing.T) {
	kept := records{}
	m := open(t, Config{Records: kept})
	if _, err := m.Select(t.Context(), control(0, 0x08, 0x40), 0); err != nil || !m.WriteProtected() || !m.ReportsAborts() {
		t.Errorf("SWP %t, TAS %t, %v", m.WriteProtected(), m.ReportsAborts(), err)
	}
	if must.Succeed(t, m.Reset(t.Context())); m.WriteProtected() || m.ReportsAborts() || len(kept) != 0 {
		t.Error("a reset gives values that were not saved")
	}
	if _, err := m.Save(t.Context(), control(0, 0x08, 0), 0); err != nil {
		t.Fatal(err)
	}
	must.Succeed(t, m.Reset(t.Context()))
	if again := open(t, Config{Records: kept}); !m.WriteProtected() || !again.WriteProtected() {
		t.Errorf("SWP is %t after a reset, %t after a restart", m.WriteProtected(), again.WriteProtected())
	}
	broken := open(t, Config{Records: brokenRecords{}})
	if changed, err := broken.Save(t.Context(), caching(0), 0); err == nil || changed || !broken.WriteCache() {
		t.Errorf("what cannot be saved has changed: %t, %v", changed, err)
	}
}

// PS is set where values can be saved; saved values are refused elsewhere.
func TestParameters_Sense(t *testing.T) {
	cdb := func(control byte) []byte { return []byte{0x1A, 0, control<<6 | 0x08, 0, 255, 0} }
	for savable, m := range map[bool]*Parameters{true: open(t, Config{Records: records{}}), false: open(t, Config{})} {
		p, err := m.Sense(cdb(pcCurrent))
		if err != nil || (p[0]&pageSavable != 0) != savable || m.Savable() != savable {
			t.Errorf("savable %t: % x, %v", savable, p, err)
		}
		if _, err := m.Sense(cdb(pcSaved)); (err == nil) != savable {
			t.Errorf("savable %t: saved values: %v", savable, err)
		}
	}
}

// LBPERE and the page of the threshold are there only where the space is reported.
func TestParameters_ReportsThreshold(t *testing.T) {
	provisioning := []byte{0x1A, 0, 0x1C, 0x02, 255, 0}
	m := open(t, Config{ReportsSpace: true, ThresholdDescriptor: 0xB100000000000007})
	p, err := m.Sense(provisioning)
	if err != nil || !m.ReportsThreshold() || !bytes.Equal(p[16:24], []byte{0xB1, 0, 0, 0, 0, 0, 0, 7}) {
		t.Errorf("LBPERE %t, % x, %v", m.ReportsThreshold(), p, err)
	}
	m = open(t, Config{})
	if _, err := m.Sense(provisioning); err == nil || m.ReportsThreshold() {
		t.Errorf("LBPERE %t, %v", m.ReportsThreshold(), err)
	}
}

// Headers and lengths agree.
func TestPages_WellFormed(t *testing.T) {
	for _, p := range pagesOf(&Config{ReportsSpace: true, ThresholdDescriptor: 1}) {
		length := len(p.defaults) - 2
		head := []byte{p.code, byte(length)}
		if p.subpage != 0 {
			head = []byte{p.code | 0x40, p.subpage, 0, byte(length - 2)}
		}
		if !bytes.HasPrefix(p.defaults, head) || !bytes.HasPrefix(p.changeable, head) || len(p.defaults) != len(p.changeable) {
			t.Errorf("page %02Xh/%02Xh: headers or lengths are wrong", p.code, p.subpage)
		}
	}
}

// The record has a version; the first form, pages one after the other, is still read,
// and a later one is refused.
func TestSavedModes_Versions(t *testing.T) {
	page := caching(0)
	record, err := encodeModes([][]byte{page, {0x0A, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"version":1,"pages":["` + base64.StdEncoding.EncodeToString(page) + `","CgEC"]}`; string(record) != want {
		t.Errorf("the record is %s, want %s", record, want)
	}
	for name, tt := range map[string]struct {
		record []byte
		want   []byte
		fails  string
	}{
		"as it is written": {record, append(bytes.Clone(page), 0x0A, 1, 2), ""},
		"the first form":   {page, page, ""},
		"none":             {nil, nil, ""},
		"a later version":  {[]byte(`{"version":2,"pages":[]}`), nil, "version 2, not 1"},
		"no version":       {[]byte(`{"pages":[]}`), nil, "version 0, not 1"},
		"no record":        {[]byte(`{"version"`), nil, "record of the mode pages"},
	} {
		got, err := decodeModes(tt.record)
		if (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: %v, want %q", name, err, tt.fails)
		}
		if !bytes.Equal(got, tt.want) {
			t.Errorf("%s: % x, want % x", name, got, tt.want)
		}
	}
}

// FuzzModeRecord opens any saved record: the pages are those that there should be, with
// default values where they cannot be changed.
func FuzzModeRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(caching(0))
	f.Add(append(control(0xFF, 0xFF, 0xFF), 0x4A, 1, 0xFF, 0xFF))
	f.Add([]byte{0x4A, 1, 0, 0x1C, 31: 0xFF})
	kept, err := encodeModes([][]byte{caching(0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(kept)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decodeModes(data); err != nil {
			return // it does not open
		}
		m, err := Open(Config{Records: records{modeRecord: data}, Era: record.None{}})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range m.pages {
			page := m.current[i]
			if len(page) != len(p.defaults) {
				t.Fatalf("page %02Xh has %d bytes", p.code, len(page))
			}
			for k := range page {
				fixed := p.defaults[k] &^ p.changeable[k]
				if k >= 4 && page[k]&^p.changeable[k] != fixed {
					t.Fatalf("page %02Xh, byte %d: %02Xh", p.code, k, page[k])
				}
			}
		}
	})
}

// Current values are what the process that takes over has, until a reset; one that a reset
// interrupts, or that cannot be kept, changes nothing.
func TestParameters_Era(t *testing.T) {
	kept, era := records{}, records{}
	reopened := func() *Parameters { return open(t, Config{Records: kept, Era: era}) }
	m := reopened()
	if _, err := m.Save(t.Context(), control(0, 0x08, 0), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Select(t.Context(), control(0x04, 0, 0x40), 0); err != nil {
		t.Fatal(err)
	}
	after := func(name string, swp, dense, tas bool) {
		t.Helper()
		m := reopened()
		if got := m.SenseFormat() == sense.Descriptor; m.WriteProtected() != swp || got != dense || m.ReportsAborts() != tas {
			t.Errorf("%s: SWP %t, D_SENSE %t, TAS %t", name, m.WriteProtected(), got, m.ReportsAborts())
		}
	}
	after("MODE SELECT", false, true, true)
	if again := open(t, Config{Records: kept}); !again.WriteProtected() || again.ReportsAborts() {
		t.Error("a loss of power does not give the saved values")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := m.Select(ended, control(0, 0x08, 0), 0); err == nil {
		t.Error("a command that a reset has ended succeeds")
	}
	after("a command that a reset ended", false, true, true)
	must.Succeed(t, m.Reset(t.Context()))
	after("a reset", true, false, false)

	broken := open(t, Config{Era: brokenRecords{}})
	if _, err := broken.Select(t.Context(), control(0, 0x08, 0), 0); err == nil || broken.WriteProtected() {
		t.Errorf("values that are not kept are in effect: %v", err)
	}
}
