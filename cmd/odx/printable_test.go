package main

import (
	"errors"
	"strings"
	"testing"

	"odx/admin"
)

// TestPrintable: what initiators, disks and files say of themselves controls no terminal.
func TestPrintable(t *testing.T) {
	const hostile = "a\x1b]0;b\x07\r\nsession 1\t\u202ec\x7f\u009b"
	const harmless = `a\x1b]0;b\a\r\nsession 1\t\u202ec\x7f\u009b`
	for name, print := range map[string]func(w *strings.Builder) error{
		"alias of an initiator": func(w *strings.Builder) error {
			return printSessionsLong(w, []admin.Session{{Initiator: "iqn.a", Alias: hostile}})
		},
		"creator of a disk": func(w *strings.Builder) error {
			return printDisk(w, admin.Disk{Name: "a.vhdx", Format: "vhdx", Creator: hostile})
		},
		"parent of a disk": func(w *strings.Builder) error {
			return printDisk(w, admin.Disk{Name: "a.vhdx", Format: "vhdx", Parents: []string{hostile}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var w strings.Builder
			if err := print(&w); err != nil || !strings.Contains(w.String(), harmless) || strings.ContainsAny(w.String(), "\x1b\x07\r\x7f\u202e\u009b") {
				t.Errorf("%v: %q", err, w.String())
			}
		})
	}
	t.Run("error", func(t *testing.T) {
		var w strings.Builder
		printError(&w, errors.New("one\n\ttwo \x1b[31m ü"))
		if w.String() != "odx: one\n\ttwo \\x1b[31m ü\n" {
			t.Errorf("%q", w.String())
		}
	})
}
