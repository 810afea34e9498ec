package conf

import (
	"strings"
	"testing"
)

const mib = 1 << 20

// Given parts keep their size, the others share the remainder, and the sum is the
// total.
func TestConfig_DivideMemory(t *testing.T) {
	for what, c := range map[string]struct {
		keys      string
		available int64
		want      Memory
	}{
		"nothing given":                {"", 0, Memory{Total: 1024 * mib, Cache: 256 * mib, Tokens: 256 * mib, Buffers: 224 * mib, Copies: 32 * mib, Tables: 32 * mib, Requests: 16 * mib, Rest: 208 * mib}},
		"nothing given, large machine": {"", 64 << 30, Memory{Total: 1024 * mib, Cache: 256 * mib, Tokens: 256 * mib, Buffers: 224 * mib, Copies: 32 * mib, Tables: 32 * mib, Requests: 16 * mib, Rest: 208 * mib}},
		"nothing given, small machine": {"", 256 * mib, Memory{Total: 192 * mib, Cache: 48 * mib, Tokens: 48 * mib, Buffers: 42 * mib, Copies: 6 * mib, Tables: 6 * mib, Requests: 4 * mib, Rest: 38 * mib}},
		"nothing given, tiny machine":  {"", 64 * mib, Memory{Total: 128 * mib, Cache: 32 * mib, Tokens: 32 * mib, Buffers: 28 * mib, Copies: 4 * mib, Tables: 4 * mib, Requests: 4 * mib, Rest: 24 * mib}},
		"total":                        {"memory: 512MiB", 64 << 30, Memory{Total: 512 * mib, Cache: 128 * mib, Tokens: 128 * mib, Buffers: 112 * mib, Copies: 16 * mib, Tables: 16 * mib, Requests: 8 * mib, Rest: 104 * mib}},
		"total above the machine":      {"memory: 512MiB", 256 * mib, Memory{Total: 512 * mib, Cache: 128 * mib, Tokens: 128 * mib, Buffers: 112 * mib, Copies: 16 * mib, Tables: 16 * mib, Requests: 8 * mib, Rest: 104 * mib}},
		"cache":                        {"memory: 512MiB\nstore: {cache: 320MiB}", 0, Memory{Total: 512 * mib, Cache: 320 * mib, Tokens: 64 * mib, Buffers: 56 * mib, Copies: 8 * mib, Tables: 8 * mib, Requests: 4 * mib, Rest: 52 * mib}},
		"cache leaves little": {"memory: 512MiB\nstore: {cache: 440MiB}", 0,
			Memory{Total: 512 * mib, Cache: 440 * mib, Tokens: 8 * mib, Buffers: 28 * mib, Copies: 4 * mib, Tables: 4 * mib, Requests: 4 * mib, Rest: 24 * mib}},
		"all parts": {"memory: 512MiB\nstore: {cache: 100MiB}\ntokens: {memory: 100MiB}\nlimits: {buffers: 100MiB}", 0,
			Memory{Total: 512 * mib, Cache: 100 * mib, Tokens: 100 * mib, Buffers: 175 * mib / 2, Copies: 25 * mib / 2, Tables: 53 * mib / 2, Requests: 53 * mib / 4, Rest: 689 * mib / 4}},
		"views": {"memory: 512MiB\nviews: [{name: v, cache: {of: a, memory: 112MiB}}]", 0,
			Memory{Total: 512 * mib, Cache: 100 * mib, Tokens: 100 * mib, Buffers: 175 * mib / 2, Copies: 25 * mib / 2, Views: 112 * mib, Tables: 25 * mib / 2, Requests: 25 * mib / 4, Rest: 325 * mib / 4}},
		"cache above the machine, no total": {"store: {cache: 1GiB}", 256 * mib,
			Memory{Total: 1089 * mib, Cache: 1024 * mib, Tokens: 1 * mib, Buffers: 28 * mib, Copies: 4 * mib, Tables: 4 * mib, Requests: 4 * mib, Rest: 24 * mib}},
	} {
		t.Run(what, func(t *testing.T) {
			cfg, err := Parse("odx.yaml", []byte(c.keys+`
data_dir: data
portals: ["127.0.0.1:0"]
targets: [{name: iqn.2026-11.example.odx:t, luns: [{lun: 0, volume: b, size: 1GiB}]}]
`))
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			m := cfg.DivideMemory(c.available)
			if m != c.want {
				t.Errorf("%s: %+v, want %+v", what, m, c.want)
			}
			if sum := m.Cache + m.Tokens + m.Buffers + m.Copies + m.Views + m.Tables + m.Requests + m.Rest; sum != m.Total {
				t.Errorf("%s: sum of the parts is %d bytes, total %d", what, sum, m.Total)
			}
		})
	}
}

// A total smaller than its parts is refused, and so are other values out of range.
func TestParse_MemoryProblems(t *testing.T) {
	for keys, want := range map[string]string{
		"memory: 64MiB":                          "odx.yaml:1: memory: 64MiB is below the minimum of 128MiB",
		"memory: 512MiB\nstore: {cache: 512MiB}": "odx.yaml:1: memory: 512MiB is too small",
		"memory: 256MiB\nviews: [{name: v, cache: {of: a, memory: 200MiB}}]":  "odx.yaml:1: memory: 256MiB is too small",
		"memory: 512MiB\ntokens: {memory: 300MiB}\nlimits: {buffers: 200MiB}": "odx.yaml:1: memory: 512MiB is too small",
		"limits: {buffers: 1MiB}":    "odx.yaml:1: limits.buffers: 1MiB is below the minimum of 32MiB",
		"limits: {ping_after: 0.5s}": "odx.yaml:1: limits.ping_after: invalid value \"0.5s\"",
		"limits: {ping_timeout: 0}":  "odx.yaml:1: limits.ping_timeout: invalid value \"0\"",
	} {
		t.Run(keys, func(t *testing.T) {
			_, err := Parse("odx.yaml", []byte(keys+`
data_dir: data
portals: ["127.0.0.1:0"]
targets: [{name: iqn.2026-11.example.odx:t, luns: [{lun: 0, volume: b, size: 1GiB}]}]
`))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", keys, err, want)
			}
		})
	}
	for _, off := range []string{"0", "0s"} {
		cfg, err := Parse("odx.yaml", []byte("limits: {ping_after: "+off+`}
data_dir: data
portals: ["127.0.0.1:0"]
targets: [{name: iqn.2026-11.example.odx:t, luns: [{lun: 0, volume: b, size: 1GiB}]}]
`))
		if err != nil || cfg.Limits.PingAfter != NoPings {
			t.Errorf("ping_after: %s: %v", off, err)
		}
	}
}
