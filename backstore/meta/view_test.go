package meta

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestViewIsOnePointInTime(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		must(t, kv.Update([]Op{op("a", "1"), op("b", "2"), op("c", "3")}))
		stop := errors.New("stop")
		err := kv.View(func(r Reader) error {
			for range 2 {
				var all []string
				must(t, r.Scan(nil, func(key, value []byte) error {
					all = append(all, string(key)+"="+string(value))
					return kv.Update([]Op{op("a", "x"), del("b"), op("d", "4")})
				}))
				if got := strings.Join(all, " "); got != "a=1 b=2 c=3" {
					t.Errorf("scan within a view: %q", got)
				}
			}
			for key, want := range map[string]string{"a": "1", "b": "2"} {
				if got, err := r.Get([]byte(key)); err != nil || !bytes.Equal(got, []byte(want)) {
					t.Errorf("get of %s within a view: %q, %v", key, got, err)
				}
			}
			for _, key := range []string{"d", ""} {
				_, err := r.Get([]byte(key))
				wantErr(t, "get of what came later", err, ErrNotFound)
			}
			wantErr(t, "scan that is ended", r.Scan(nil, func(_, _ []byte) error { return stop }), stop)
			return stop
		})
		wantErr(t, "view", err, stop)
		wantDump(t, kv, "", "a=x c=3 d=4")
		must(t, kv.Close())
		wantErr(t, "view of a closed engine", kv.View(func(Reader) error { return nil }), ErrClosed)
	})
}
