package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"odx/conf"
)

// TestLog_Journal: lines have priorities where the log goes to the journal, and only there.
func TestLog_Journal(t *testing.T) {
	for name, tt := range map[string]struct {
		format  string
		journal bool
		begins  []string
	}{
		"journal, text": {"text", true, []string{"<7>time=", "<6>time=", "<4>time=", "<3>time="}},
		"journal, JSON": {"json", true, []string{`<7>{"level":"debug"`, `<6>{"level":"info"`, `<4>{"level":"warning"`, `<3>{"error":"torn"`}},
		"a file":        {"text", false, []string{"time=", "time=", "time=", "time="}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(t.TempDir() + "/log")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var st unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &st); err != nil {
				t.Fatal(err)
			}
			stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
			if !tt.journal {
				stream = "1:1" // that of another process, whose environment this one has
			}
			t.Setenv(journalStream, stream)
			log, err := newLog(conf.Log{Level: "debug", Format: tt.format}, f)
			if err != nil {
				t.Fatal(err)
			}
			log.Debug("a")
			log.Info("b")
			log.Warn("c")
			log.WithError(errors.New("torn")).Error("d")
			text, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			if len(lines) != len(tt.begins) {
				t.Fatalf("%q", lines)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, tt.begins[i]) {
					t.Errorf("line %q, want %q at its beginning", line, tt.begins[i])
				}
			}
		})
	}
}
