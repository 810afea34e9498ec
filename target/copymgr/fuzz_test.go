package copymgr

import "testing"

// checkFuzzedList checks an accepted list against the bounds that are reported to
// initiators.
func checkFuzzedList(t *testing.T, l *copyList, listLength int) {
	t.Helper()
	if len(l.cscds) > maxCSCDs || len(l.segments) > maxSegments {
		t.Errorf("%d CSCDs, %d segments", len(l.cscds), len(l.segments))
	}
	if !l.identified && l.listID != 0 {
		t.Error("a list identifier that is none")
	}
	for _, c := range l.cscds {
		if c.rod != nil && (c.rod.token == nil || len(c.designator.ID) > 0) {
			t.Errorf("%+v", c)
		}
		if len(c.designator.ID) > 20 || c.at+cscdLength > listLength || (c.at-cscdIDsBegin)%cscdLength != 0 {
			t.Errorf("%+v", c)
		}
	}
	for i, s := range l.segments {
		if s.number != i || s.at >= listLength {
			t.Errorf("%+v", s)
		}
		for _, carried := range []int64{0, 511, 4095} {
			for _, source := range []int64{0, carried / 2, carried} {
				fit := fitBlocks(&s, source, carried-source, 512, 4096)
				if min(fit.read, fit.write, fit.processed, fit.restSource, fit.restDestination) < 0 ||
					carried+fit.read != fit.write+fit.restDestination+fit.restSource {
					t.Errorf("%+v: %+v", s, fit)
				}
			}
		}
	}
}

func FuzzExtendedCopyLID1(f *testing.F) {
	f.Add(lid1Parameters(1, 0, [][]byte{make([]byte, 32)}, segmentOf{kind: 2, count: 1}))
	f.Add(lid1Parameters(1, 2, [][]byte{append([]byte{0xE4}, make([]byte, 31)...)},
		segmentOf{kind: 2, flags: 3, count: 65535}, segmentOf{kind: 0x0A, count: 1<<32 - 1}, segmentOf{kind: 7, flags: 1}, segmentOf{kind: 0x0D}))
	f.Add(inline(0, lid1Parameters(1, 0, [][]byte{rodCSCDOf(4)}, segmentOf{kind: 2, count: 1}), make([]byte, 516)))
	f.Fuzz(func(t *testing.T, p []byte) {
		if l, err := parseLID1(p); err == nil {
			checkFuzzedList(t, l, len(p))
		}
	})
}

func FuzzExtendedCopyLID4(f *testing.F) {
	f.Add(lid4Parameters(1, 0, 1, [][]byte{append([]byte{0xE4}, make([]byte, 31)...)}, segmentOf{kind: 2, count: 1}))
	f.Add(lid4Parameters(0, 3, 2, nil, segmentOf{kind: 0x0A, source: 0xFFFF}))
	f.Add(inline(1, lid4Parameters(1, 0, 0, [][]byte{rodCSCDOf(0)}, segmentOf{kind: 0x0A, source: 1, destination: 0xFFFF}), make([]byte, 512)))
	f.Fuzz(func(t *testing.T, p []byte) {
		if l, err := parseLID4(p); err == nil {
			checkFuzzedList(t, l, len(p))
		}
	})
}
