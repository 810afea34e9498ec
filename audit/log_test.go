package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newLog returns a log that is closed with the test, and what it writes to the log of the
// server.
func newLog(t *testing.T, o Options) (*Log, *bytes.Buffer) {
	t.Helper()
	var text bytes.Buffer
	base := logrus.New()
	base.SetOutput(&text)
	base.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	l := New(logrus.NewEntry(base), o)
	t.Cleanup(func() { shut(t, l) })
	return l, &text
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLog_Record has the line of each kind of actor and of change, in the file and in the
// log.
func TestLog_Record(t *testing.T) {
	type size struct {
		Bytes int64 `json:"size_bytes"`
	}
	for name, tt := range map[string]struct {
		by        Actor
		change    Change
		line, log string
	}{
		"nothing said": {Actor{}, Change{What: "w"}, `"what":"w","by":{"kind":"server"}`, `by=server`},
		"signal": {
			Signal("SIGHUP"), Change{What: "configuration", Subject: "log.level", Before: "info", After: "debug"},
			`"what":"configuration","subject":"log.level","before":"info","after":"debug","by":{"kind":"signal","name":"SIGHUP"}`,
			`after=debug audit=configuration before=info by="signal SIGHUP" subject=log.level`,
		},
		"root": {
			Process(0, 12, "root"), Change{What: "volume create", Subject: "volume v", After: size{4096}},
			`"what":"volume create","subject":"volume v","after":{"size_bytes":4096},"by":{"kind":"local","name":"root","uid":0,"pid":12}`,
			`after="{\"size_bytes\":4096}" audit="volume create" by="uid 0 (root), pid 12" subject="volume v"`,
		},
		"user without a name": {Process(1000, 13, ""), Change{What: "w"}, `"what":"w","by":{"kind":"local","uid":1000,"pid":13}`, `by="uid 1000, pid 13"`},
		"secret": {
			Secret("backup", "192.0.2.1"), Change{What: "volume delete", Before: size{1}, Err: errors.New("in use")},
			`"what":"volume delete","before":{"size_bytes":1},"error":"in use","by":{"kind":"secret","name":"backup","address":"192.0.2.1"}`,
			`by="secret backup from 192.0.2.1" error="in use"`,
		},
		"initiator": {
			Initiator("iqn.2026-11.example:host", ""), Change{What: "reservation cleared"},
			`"what":"reservation cleared","by":{"kind":"initiator","name":"iqn.2026-11.example:host"}`,
			`by="initiator iqn.2026-11.example:host"`,
		},
		"several lines in a text": {Actor{}, Change{What: "w", Subject: "a\nb"}, `"what":"w","subject":"a\nb","by":{"kind":"server"}`, `subject="a\nb"`},
		"no JSON":                 {Actor{}, Change{What: "w", After: func() {}}, `"what":"w","after":"not encoded: json: unsupported type: func()","by":{"kind":"server"}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // for the time
				path := filepath.Join(t.TempDir(), "audit.log")
				l, text := newLog(t, Options{File: path})
				l.Record(With(t.Context(), tt.by), tt.change)
				shut(t, l)
				if got, want := read(t, path), `{"version":1,"time":"2000-01-01T00:00:00Z",`+tt.line+"}\n"; got != want {
					t.Errorf("the file has\n%swant\n%s", got, want)
				}
				if got := text.String(); !strings.Contains(got, "level=info msg=change ") || !strings.Contains(got, tt.log) || strings.Count(got, "\n") != 1 {
					t.Errorf("the log has\n%swant one line with\n%s", got, tt.log)
				}
			})
		})
	}
}

// TestLog_Record_Long: a state that is too long is cut, and does not break the line.
func TestLog_Record_Long(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, _ := newLog(t, Options{File: path})
	long := strings.Repeat("ä", maxValue)
	l.Record(t.Context(), Change{What: "w", Subject: long, Before: long, After: map[string]string{"k": long}, Err: errors.New(long)})
	shut(t, l)
	var r record
	if err := json.Unmarshal([]byte(read(t, path)), &r); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"subject": r.Subject, "before": textOf(r.Before), "after": textOf(r.After), "error": r.Error} {
		if len(text) > maxValue+32 || !strings.Contains(text, "ää… (") || !strings.HasSuffix(text, " bytes)") {
			t.Errorf("%s has %d bytes and ends with %q", name, len(text), text[max(0, len(text)-32):])
		}
	}
}

// TestLog_Rotation: the file stays below its size, and as many renamed ones stay as the
// options say. No line is in none of them until then.
func TestLog_Rotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	l, _ := newLog(t, Options{File: path, MaxBytes: 1, Keep: 3})
	for i := range 3000 {
		l.Record(t.Context(), Change{What: "w", Subject: fmt.Sprint(i), After: strings.Repeat("x", 1024)})
		l.Sync(t.Context())
	}
	shut(t, l)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) < 3 || len(files) > 4 {
		t.Fatalf("%q, %v", files, err)
	}
	seen := map[string]bool{}
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 1<<20 || info.Mode().Perm() != fileMode {
			t.Errorf("%s has %d bytes and mode %v", name, info.Size(), info.Mode())
		}
		for lines := bufio.NewScanner(strings.NewReader(read(t, name))); lines.Scan(); {
			var r record
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			seen[r.Subject] = true
		}
	}
	for i := 200; i < 3000; i++ { // those before may be in the fifth file
		if !seen[fmt.Sprint(i)] {
			t.Fatalf("line %d is in no file", i)
		}
	}
	if st := l.Status(); st != (Status{File: path}) {
		t.Errorf("status %+v", st)
	}
}

// alone reports whether this process runs nothing but the test. Otherwise it runs the test
// in such a process: what bounds a process bounds the files that the go command has it
// write, too.
func alone(t *testing.T) bool {
	t.Helper()
	const name = "ODX_TEST_ALONE"
	if os.Getenv(name) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), name+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// limitFiles bounds the length of files of this process, as a full disk does, until the
// returned function is called.
func limitFiles(t *testing.T, bytes uint64) (lift func()) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	lift = func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(lift)
	return lift
}

// TestLog_Full: what a full disk does not take is in the log, which says so once, and in
// the status. When there is room again, the file says how much is missing, and no line of
// it is torn.
func TestLog_Full(t *testing.T) {
	if !alone(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	l, text := newLog(t, Options{File: path})
	recordAndSync := func(what string) {
		l.Record(t.Context(), Change{What: what})
		l.Sync(t.Context())
	}
	recordAndSync("first")
	lift := limitFiles(t, uint64(len(read(t, path)))+20)
	for range 5 {
		recordAndSync("lost")
	}
	if st := l.Status(); st.Lost != 5 || !strings.Contains(st.Problem, "file too large") {
		t.Errorf("status %+v", st)
	}
	if got := text.String(); strings.Count(got, "audit file not written") != 1 || strings.Count(got, "audit=lost") != 5 {
		t.Errorf("the log has\n%s", got)
	}
	lift()
	recordAndSync("after")
	if st := l.Status(); st.Lost != 5 || st.Problem != "" {
		t.Errorf("status %+v", st)
	}
	shut(t, l)
	var what []string
	for _, line := range strings.Split(strings.TrimSpace(read(t, path)), "\n") {
		var r record
		if json.Unmarshal([]byte(line), &r) != nil {
			what = append(what, "torn")
			continue
		}
		what = append(what, r.What+string(r.After))
	}
	if got := strings.Join(what, ", "); got != "first, torn, after, audit lines lost5" {
		t.Errorf("the file has %s", got)
	}
	if got := text.String(); strings.Count(got, "audit file written again") != 1 || !strings.Contains(got, "lost=5") {
		t.Errorf("the log has\n%s", got)
	}
}

// TestLog_NoFile: what is in the place of the file, or of its directory, stays; a file
// that can be made later is.
func TestLog_NoFile(t *testing.T) {
	for name, tt := range map[string]struct {
		put  func(dir string) error // in the place of dir/sub/audit.log
		want string
	}{
		"directory in its place": {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "sub", "audit.log"), 0o700) }, "not a regular file"},
		"pipe in its place": {func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o700), unix.Mkfifo(filepath.Join(dir, "sub", "audit.log"), 0o600))
		}, "not a regular file"},
		"file in the place of its directory": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "sub"), []byte("x"), 0o600) }, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := tt.put(dir); err != nil {
				t.Fatal(err)
			}
			l, _ := newLog(t, Options{File: filepath.Join(dir, "sub", "audit.log")})
			l.Record(t.Context(), Change{What: "lost"})
			l.Sync(t.Context())
			if st := l.Status(); st.Lost != 1 || !strings.Contains(st.Problem, tt.want) {
				t.Errorf("status %+v", st)
			}
			if err := os.RemoveAll(filepath.Join(dir, "sub")); err != nil {
				t.Fatal(err)
			}
			l.Record(t.Context(), Change{What: "found"})
			l.Sync(t.Context())
			if st := l.Status(); st.Problem != "" {
				t.Errorf("status %+v", st)
			}
			if got := read(t, filepath.Join(dir, "sub", "audit.log")); !strings.Contains(got, `"what":"found"`) || !strings.Contains(got, `"what":"audit lines lost"`) {
				t.Errorf("the file has\n%s", got)
			}
		})
	}
}

// TestLog_RotationFails: while a file that is full cannot be renamed, lines are in the log
// only, which says so once.
func TestLog_RotationFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("a", 250)) // a time makes it too long
	l, text := newLog(t, Options{File: path, MaxBytes: 1})
	for l.Status().Lost < 3 {
		l.Record(t.Context(), Change{What: "w", After: strings.Repeat("x", 1024)})
		l.Sync(t.Context())
	}
	if n := strings.Count(text.String(), `msg="audit file not written; lines are in this log only until it is" error="size rotation failed`); n != 1 || l.Status().Problem == "" {
		t.Errorf("%d lines say so, status %+v", n, l.Status())
	}
}

// TestLog_Moved: a file that is not in its place any more gets no line, where it would be
// lost without an error: there is a new one, or the lines are counted as lost.
func TestLog_Moved(t *testing.T) {
	begin := func(t *testing.T) (l *Log, path string, record func(what string)) {
		path = filepath.Join(t.TempDir(), "sub", "audit.log")
		l, _ = newLog(t, Options{File: path})
		record = func(what string) {
			l.Record(t.Context(), Change{What: what})
			l.Sync(t.Context())
		}
		record("before")
		return l, path, record
	}
	for name, move := range map[string]func(path string) error{
		"file removed":      os.Remove,
		"directory removed": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"file renamed":      func(path string) error { return os.Rename(path, path+".1") },
		"file replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, path, record := begin(t)
			if err := move(path); err != nil {
				t.Fatal(err)
			}
			record("after")
			if got := read(t, path); !strings.Contains(got, `"what":"after"`) || strings.Contains(got, `"what":"before"`) {
				t.Errorf("the file has\n%s", got)
			}
			if st := l.Status(); st != (Status{File: path}) {
				t.Errorf("status %+v", st)
			}
		})
	}
	t.Run("file in the place of the directory", func(t *testing.T) {
		l, path, record := begin(t)
		dir := filepath.Dir(path)
		if err := errors.Join(os.Rename(dir, dir+".aside"), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			record("lost")
		}
		if st := l.Status(); st.Lost != 3 || !strings.Contains(st.Problem, "not a directory") {
			t.Errorf("status %+v", st)
		}
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".aside", dir)); err != nil {
			t.Fatal(err)
		}
		record("after")
		if st := l.Status(); st != (Status{File: path, Lost: 3}) {
			t.Errorf("status %+v", st)
		}
		if got := read(t, path); strings.Count(got, "\n") != 3 || !strings.Contains(got, `"what":"audit lines lost","after":3`) {
			t.Errorf("the file has\n%s", got)
		}
	})
}

// TestLog_Configure: a line goes to the file of the options that were set before it.
func TestLog_Configure(t *testing.T) {
	dir := t.TempDir()
	l, text := newLog(t, Options{})
	l.Record(t.Context(), Change{What: "none"})
	l.Sync(t.Context())
	for _, name := range []string{"a", "b", "a"} {
		l.Configure(Options{File: filepath.Join(dir, name)})
		l.Record(t.Context(), Change{What: "in " + name})
		l.Sync(t.Context())
		if st := l.Status(); st != (Status{File: filepath.Join(dir, name)}) {
			t.Errorf("status %+v", st)
		}
	}
	l.Configure(Options{})
	l.Record(t.Context(), Change{What: "none"})
	shut(t, l)
	for name, want := range map[string]int{"a": 2, "b": 1} {
		if got := read(t, filepath.Join(dir, name)); strings.Count(got, `"what":"in `+name+`"`) != want || strings.Count(got, "\n") != want {
			t.Errorf("file %s has\n%s", name, got)
		}
	}
	if n := strings.Count(text.String(), "msg=change"); n != 5 {
		t.Errorf("the log has %d lines\n%s", n, text)
	}
}

// TestLog_TornFile: a file whose last line is torn is continued with a new line.
func TestLog_TornFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte(`{"version":1,"wh`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, _ := newLog(t, Options{File: path})
	l.Record(t.Context(), Change{What: "next"})
	shut(t, l)
	if got := read(t, path); !strings.HasPrefix(got, `{"version":1,"wh`+"\n"+`{"version":1,"time":`) {
		t.Errorf("the file has\n%s", got)
	}
}

// TestLog_Sum: the first write is a line at once, what follows is one line for each
// period, and what is not written any more is forgotten.
func TestLog_Sum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		l, _ := newLog(t, Options{File: path})
		ctx := With(t.Context(), Secret("copy", "192.0.2.1"))
		time.Sleep(time.Second)
		for range 3 {
			l.Sum(ctx, Change{What: "volume write", Subject: "volume v"}, 100)
		}
		l.Sum(ctx, Change{What: "volume write", Subject: "volume v", Err: errors.New("no space")}, 0)
		l.Sum(t.Context(), Change{What: "volume write", Subject: "volume v"}, 7) // by another
		time.Sleep(2 * SumPeriod)
		synctest.Wait()
		if n := len(l.sums); n != 0 {
			t.Errorf("%d sums are kept", n)
		}
		l.Sum(ctx, Change{What: "volume write", Subject: "volume v"}, 1)
		l.Sum(ctx, Change{What: "volume write", Subject: "volume v"}, 2)
		shut(t, l)
		const by = `"by":{"kind":"secret","name":"copy","address":"192.0.2.1"}`
		want := strings.Join([]string{
			`{"version":1,"time":"2000-01-01T00:00:01Z","what":"volume write","subject":"volume v",` + by + `,"requests":1,"bytes":100}`,
			`{"version":1,"time":"2000-01-01T00:00:01Z","what":"volume write","subject":"volume v","by":{"kind":"server"},"requests":1,"bytes":7}`,
			`{"version":1,"time":"2000-01-01T00:01:00Z","what":"volume write","subject":"volume v",` + by + `,"requests":3,"failed":1,"bytes":200,"since":"2000-01-01T00:00:01Z"}`,
			`{"version":1,"time":"2000-01-01T00:02:01Z","what":"volume write","subject":"volume v",` + by + `,"requests":1,"bytes":1}`,
			`{"version":1,"time":"2000-01-01T00:02:01Z","what":"volume write","subject":"volume v",` + by + `,"requests":1,"bytes":2,"since":"2000-01-01T00:02:01Z"}`,
		}, "\n") + "\n"
		if got := read(t, path); got != want {
			t.Errorf("the file has\n%swant\n%s", got, want)
		}
	})
}

// TestLog_Sum_bound: beyond so many objects at a time each change is a line of its own.
func TestLog_Sum_bound(t *testing.T) {
	l, _ := newLog(t, Options{})
	for i := range maxSums + 10 {
		l.Sum(t.Context(), Change{What: "volume write", Subject: fmt.Sprint(i)}, 1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sums) != maxSums {
		t.Errorf("%d sums", len(l.sums))
	}
}

// TestLog_Flood: an initiator that changes something without end, under any number of
// names, takes a bounded part of the file; how often it did is in there, and what others
// change is, too.
func TestLog_Flood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		l, text := newLog(t, Options{File: path})
		one := With(t.Context(), Initiator("iqn.2026-11.example:one", ""))
		for range floodBurst + 1000 {
			l.Record(one, Change{What: "PERSISTENT RESERVE OUT", Subject: "LUN 0"})
		}
		for i := range 1000 {
			l.Record(With(t.Context(), Initiator(fmt.Sprintf("iqn.2026-11.example:%d", i), "")), Change{What: "PERSISTENT RESERVE OUT"})
		}
		l.Record(With(t.Context(), Signal("SIGHUP")), Change{What: "reload"})
		synctest.Wait()
		time.Sleep(SumPeriod)
		synctest.Wait()
		l.Record(one, Change{What: "PERSISTENT RESERVE OUT", After: "after a rest"})
		shut(t, l)
		got := read(t, path)
		if n := strings.Count(got, "\n"); n != floodBurst+1+maxFlood+1+1 || n != strings.Count(text.String(), "\n") {
			t.Errorf("%d lines, and %d in the log", n, strings.Count(text.String(), "\n"))
		}
		for _, want := range []string{
			`"what":"reload"`, `"after":"after a rest"`,
			`"what":"PERSISTENT RESERVE OUT","by":{"kind":"initiator","name":"iqn.2026-11.example:one"},"requests":1000,"since":"2000-01-01T00:00:00Z"}`,
			fmt.Sprintf(`"what":"changes of other initiators","by":{"kind":"initiator"},"requests":%d,`, 1000-(maxFlood-1)),
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no line has %s", want)
			}
		}
	})
}

// TestLog_Behind: changes do not wait for a file that is slow; Sync and Close do, until
// their contexts end.
func TestLog_Behind(t *testing.T) {
	base := logrus.New()
	base.SetOutput(io.Discard)
	l := &Log{log: logrus.NewEntry(base), flood: newFlood(), queue: make(chan item, maxQueue), stop: make(chan struct{}), ended: make(chan struct{})}
	l.Configure(Options{File: filepath.Join(t.TempDir(), "audit.log")}) // and no writer
	for range maxQueue + 3 {
		l.Record(t.Context(), Change{What: "w"})
	}
	if st := l.Status(); st.Lost != 3 || st.Problem != errBehind.Error() {
		t.Errorf("status %+v", st)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	l.Sync(gone)
	if err := l.Close(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("closed: %v", err)
	}
	go l.run() // the disk answers
	shut(t, l)
	l.Sync(t.Context()) // does not wait for a writer that has ended
	l.Record(t.Context(), Change{What: "after the end"})
}

func TestFrom(t *testing.T) {
	if a := From(t.Context()); a != (Actor{Kind: Server}) {
		t.Errorf("without an actor: %+v", a)
	}
	if a := From(With(With(t.Context(), Signal("SIGHUP")), Secret("s", "a"))); a != Secret("s", "a") {
		t.Errorf("the last one: %+v", a)
	}
}

// FuzzRecord: whatever the texts of a change are, its line is one line, and valid.
func FuzzRecord(f *testing.F) {
	f.Add("volume create", "volume v", "before", "after", "an error", "name")
	f.Add("", "a\nb", "\x00\xff", "\u2028", "\"", "\\")
	f.Fuzz(func(t *testing.T, what, subject, before, after, failure, name string) {
		r := newRecord(Secret(name, subject), &Change{What: what, Subject: subject, Before: before, After: map[string]string{before: after}, Err: errors.New(failure)})
		line := r.line()
		var back record
		if err := json.Unmarshal(line, &back); err != nil || bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Errorf("%q: %v", line, err)
		}
		if len(line) > 64<<10 {
			t.Errorf("the line has %d bytes", len(line))
		}
		var text bytes.Buffer
		log := logrus.New()
		log.SetOutput(&text)
		if r.print(logrus.NewEntry(log)); bytes.Count(text.Bytes(), []byte("\n")) != 1 {
			t.Errorf("the log has %q", &text)
		}
	})
}
