package main

import (
	"bytes"
	"strings"
	"testing"

	"odx/backstore"
	"odx/internal/kit/must"
)

// odx store holds lists what other stores hold, and ends what one of them does.
func TestStoreHolds(t *testing.T) {
	one, two := strings.Repeat("1a", 16), strings.Repeat("2b", 16)
	hold := append([]byte{1}, make([]byte, 16)...)
	eachWay(t, func(t *testing.T, s *backstore.Store) {
		fillSrc(3)(t, s)
		var recs []backstore.Record
		for _, key := range []string{one + "/00000001", two + "/00000001", two + "/00000002"} {
			recs = append(recs, backstore.Record{Key: []byte("store/hold/" + key), Value: bytes.Clone(hold)})
		}
		must.Succeed(t, s.PutRecords(t.Context(), recs...))
	}, func(t *testing.T, path string) {
		script(t, path, []command{
			{args: "store holds", stdout: "STORE                             SEGMENTS  BYTES\n" + one + "  1         16384\n" + two + "  2         16384\n"},
			{args: "store holds --end 1a", stderr: "odx: invalid argument: \"1a\" is no ID of a store; use 32 hexadecimal digits\n", status: 1},
			{args: "store holds --end " + one, stdout: "store " + one + " holds nothing any more: 1 segment\n"},
			{args: "store holds --end " + two + " --json", stdout: "{\n  \"segments\": 2\n}\n"},
			{args: "store holds --end " + two, stdout: "store " + two + " holds nothing any more: 0 segments\n"},
			{args: "store holds --json", stdout: "[]\n"},
			{args: "store check", stdout: "the store in DIR/data is sound\n"},
		})
	})
}
