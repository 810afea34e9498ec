package backstore

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"odx/backstore/scrubplan"
)

// TestStoredRecords holds the bytes of records that stores have: what reads them
// differently loses what is in them.
func TestStoredRecords(t *testing.T) {
	at := time.Unix(1, 0).UTC()
	scrub := LastScrub{Ended: at, Since: at, Took: "3s", ReadBytes: 4, Damaged: 5, MendedBytes: 6, LostRows: 7}
	scrubGolden := `{"version":1,"ended":"1970-01-01T00:00:01Z","since":"1970-01-01T00:00:01Z","took":"3s","read_bytes":4,"damaged_extents":5,"mended_bytes":6,"lost_metadata":7}`
	repaired := Repaired{
		Volumes: 1, Snapshots: 2, Records: 3, LostBytes: 4, DataRead: true, Lost: []Lost{{What: "volume a", Offset: 4096, Length: 8192, Reason: "torn"}}, More: 5,
		Unused:     []UnusedChange{{FirstLSN: 6, LastLSN: 7, Records: 2, Change: Change{Kind: "write", What: "volume b", Offset: 4096, Length: 4096, Detail: "d"}}},
		MoreUnused: 8,
	}
	repairedGolden := `{"version":1,"volumes":1,"snapshots":2,"records":3,"lost_bytes":4,"data_read":true,` +
		`"lost":[{"what":"volume a","offset":4096,"length":8192,"reason":"torn"}],"more_lost":5,` +
		`"unused":[{"first_lsn":6,"last_lsn":7,"records":2,"change":{"kind":"write","what":"volume b","offset":4096,"length":4096,"detail":"d"}}],"more_unused":8}`
	encoders := map[string]struct {
		golden string
		encode func() ([]byte, error)
		decode func(text string) (any, error)
		value  any
	}{
		"scrub": {scrubGolden, scrub.Encode, func(text string) (any, error) {
			l, _, err := scrubplan.Decode([]byte(text))
			return l, err
		}, scrub},
		"repair": {repairedGolden, repaired.encode, func(text string) (any, error) { return decodeRepaired([]byte(text)) }, repaired},
		"repair, first form": {strings.Replace(repairedGolden, `"version":1,`, "", 1), nil, func(text string) (any, error) {
			return decodeRepaired([]byte(text))
		}, repaired},
	}
	for name, tt := range encoders {
		t.Run(name, func(t *testing.T) {
			if tt.encode != nil {
				if got, err := tt.encode(); err != nil || string(got) != tt.golden {
					t.Errorf("%s, %v\nwant %s", got, err, tt.golden)
				}
			}
			if got, err := tt.decode(tt.golden); err != nil || !reflect.DeepEqual(got, tt.value) {
				t.Errorf("read as %+v, %v\nwant %+v", got, err, tt.value)
			}
		})
	}
	t.Run("later versions", func(t *testing.T) {
		if l, ok, err := scrubplan.Decode([]byte(`{"version":2,"read_bytes":4}`)); ok || err != nil || l != (LastScrub{}) {
			t.Errorf("a scrub: %+v, %v, %v; want nothing known", l, ok, err)
		}
		if _, err := decodeRepaired([]byte(`{"version":2}`)); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("a repair: %v", err)
		}
	})
}
