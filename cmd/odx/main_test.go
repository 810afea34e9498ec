package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/conf"
	"odx/internal/kit/logs"
)

// TestMain makes the test binary odx itself when the environment says so: the
// tests start it as the program that it is.
func TestMain(m *testing.M) {
	if how := os.Getenv("BE_SUCCESSOR"); how != "" && slices.Contains(os.Args, "--"+successorFlag) {
		beFaultySuccessor(how)
	}
	if os.Getenv("BE_ODX") != "" {
		main()
	}
	os.Exit(m.Run())
}

const config = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, volume: dst, size: 64MiB, read_only: true}
log: {level: debug, format: json}
`

// writeConfig writes a configuration to a new directory and returns its path.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "odx.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func odx(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	// The race detector would wait for a second at the end of each process.
	cmd.Env = append(os.Environ(), "BE_ODX=1", "NOTIFY_SOCKET=", "ODX_CONFIG=", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// output runs odx to its end and returns what it wrote and its exit status.
func output(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return input(t, nil, args...)
}

// input is output with bytes on standard input.
func input(t *testing.T, in []byte, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := odx(args...)
	cmd.Stdin = bytes.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// server is a running odx serve.
type server struct {
	cmd    *exec.Cmd
	lines  []string // of standard output until it was ready
	portal string
	stdout *bufio.Reader
	stderr *logs.Text
}

var readyLine = regexp.MustCompile(`^odx \S+ is ready on (\S+)\n$`)

// startServer starts odx serve and waits until it is ready.
func startServer(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, stderr: new(logs.Text)}
	if cmd.Stderr == nil {
		cmd.Stderr = s.stderr
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	s.stdout = bufio.NewReader(pipe)
	first, err := s.stdout.ReadString('\n')
	m := readyLine.FindStringSubmatch(first)
	if m == nil {
		cmd.Wait()
		t.Fatalf("said %q (%v), not that it is ready; standard error:\n%s", first, err, s.stderr)
	}
	s.portal = m[1]
	s.lines = append(s.lines, first)
	for range 2 { // a URL for each LUN
		line, err := s.stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		s.lines = append(s.lines, line)
	}
	return s
}

// end waits for the server, which has 10 seconds.
func (s *server) end(t *testing.T) error {
	t.Helper()
	kill := time.AfterFunc(10*time.Second, func() {
		t.Error("did not end within 10 seconds")
		s.cmd.Process.Kill()
	})
	defer kill.Stop()
	s.stdout.WriteTo(new(bytes.Buffer)) // to its end, before Wait closes it
	return s.cmd.Wait()
}

func TestServeUntilSignal(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			path := writeConfig(t, config)
			s := startServer(t, odx("serve", "--config", path))
			want := "iscsi://" + s.portal + "/iqn.2026-11.example.odx:disks/1  volume dst, 64MiB, read-only\n"
			if s.lines[2] != want {
				t.Errorf("got %q, want %q", s.lines[2], want)
			}
			conn, err := net.Dial("tcp", s.portal)
			if err != nil {
				t.Fatalf("ready, but: %v", err)
			}
			defer conn.Close() // a client that stays does not hold up the stop
			s.cmd.Process.Signal(sig)
			if err := s.end(t); err != nil {
				t.Errorf("%v; standard error:\n%s", err, s.stderr)
			}
			for line := range strings.Lines(s.stderr.String()) {
				var entry struct{ Level, Msg string }
				if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg == "" {
					t.Errorf("log line is not JSON: %q", line)
				}
			}
			if !strings.Contains(s.stderr.String(), `"msg":"stopped"`) {
				t.Errorf("the log does not say that it stopped:\n%s", s.stderr)
			}
		})
	}
}

// TestServe_OtherSignals: none of them ends the server, nor does the end of the process that
// reads its output.
func TestServe_OtherSignals(t *testing.T) {
	cmd := odx("serve", "--config", writeConfig(t, config))
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, cmd)
	lines := bufio.NewScanner(log)
	for sig, want := range map[syscall.Signal]string{
		syscall.SIGHUP: `"msg":"configuration applied"`, syscall.SIGUSR1: `"msg":"signal ignored: `,
	} {
		cmd.Process.Signal(sig)
		for !strings.Contains(lines.Text(), want) {
			if !lines.Scan() {
				t.Fatalf("%v: the log ended", sig)
			}
		}
	}
	log.Close() // from now on each line is a SIGPIPE
	cmd.Process.Signal(syscall.SIGHUP)
	logIn(t, s.portal).Close()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// logIn opens a discovery session (RFC 7143 11.12) that is then left alone.
func logIn(t *testing.T, portal string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	text := "InitiatorName=iqn.2026-11.example.odx:idle\x00SessionType=Discovery\x00"
	pdu := make([]byte, 48, 48+len(text)+3)
	pdu[0] = 0x43                             // Login Request, immediate
	pdu[1] = 0x87                             // transit from operational negotiation to full feature phase
	pdu[7] = byte(len(text))                  // DataSegmentLength
	copy(pdu[8:], "\x80\x00\x00\x00\x00\x01") // ISID
	pdu = append(pdu, text...)
	pdu = append(pdu, make([]byte, -len(text)&3)...)
	if _, err := conn.Write(pdu); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 48)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 0x23 || answer[36] != 0 {
		t.Fatalf("login response % x (%v)", answer, err)
	}
	return conn
}

// TestStopWithIdleInitiator: an initiator that stays and answers nothing costs
// some of the 10 seconds, no more.
func TestStopWithIdleInitiator(t *testing.T) {
	s := startServer(t, odx("serve", "--config", writeConfig(t, config)))
	logIn(t, s.portal)
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Errorf("%v; standard error:\n%s", err, s.stderr)
	}
}

// TestSecondSignal: while it waits for that initiator, another signal ends the
// server at once.
func TestSecondSignal(t *testing.T) {
	cmd := odx("serve", "--config", writeConfig(t, config))
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, cmd)
	logIn(t, s.portal)
	cmd.Process.Signal(syscall.SIGTERM)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), `"msg":"stopping"`) {
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	s.end(t)
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, not with the second signal", cmd.ProcessState)
	}
}

// TestServeAfterKill: a server that was killed leaves a lock, a socket and a
// journal that do not keep the next one from starting.
func TestServeAfterKill(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	s.cmd.Process.Kill()
	s.end(t)
	again := startServer(t, odx("serve", "--config", path))
	again.cmd.Process.Signal(syscall.SIGTERM)
	if err := again.end(t); err != nil {
		t.Errorf("%v; standard error:\n%s", err, again.stderr)
	}
}

func TestNotifiesSystemd(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	expect := func(want string) {
		t.Helper()
		socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 100)
		n, err := socket.Read(buf)
		if got := string(buf[:n]); got != want {
			t.Errorf("systemd is notified of %q (%v), want %q", got, err, want)
		}
	}
	cmd := odx("serve", "--config", writeConfig(t, config))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+address)
	s := startServer(t, cmd)
	expect("READY=1")
	s.cmd.Process.Signal(syscall.SIGTERM)
	expect("STOPPING=1")
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// TestServeRefused: one line on standard error, nothing on standard output,
// and an exit status that is not 0.
func TestServeRefused(t *testing.T) {
	running := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", running))
	dir := filepath.Dir(running)
	missing := filepath.Join(t.TempDir(), "none.yaml")
	unknown := writeConfig(t, config+"tragets: 5\n")
	taken := writeConfig(t, strings.Replace(config, "127.0.0.1:0", s.portal, 1))
	for name, tt := range map[string]struct{ path, want string }{
		"store locked":     {running, running + ":1: data_dir: the store in " + dir + "/data is in use by another process, perhaps another odx; stop it, or choose another directory\n"},
		"portal taken":     {taken, taken + ":2: portals[0]: " + s.portal + " is in use by another program; stop it, or choose another port\n"},
		"no configuration": {missing, "odx: there is no configuration " + missing + "; use --config or $ODX_CONFIG, or create one with odx serve --write-default\n"},
		"unknown key":      {unknown, unknown + ":9: unknown key \"tragets\"; known keys: data_dir, ceph, portals, targets, "},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := output(t, "serve", "--config", tt.path)
			if status != 1 || stdout != "" {
				t.Errorf("exit status %d, standard output %q", status, stdout)
			}
			var said []string
			for line := range strings.Lines(stderr) {
				if !strings.HasPrefix(line, `{"`) { // the log
					said = append(said, line)
				}
			}
			if got := strings.Join(said, ""); len(said) != 1 || !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %swant %s", got, tt.want)
			}
		})
	}
}

func TestWriteDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odx.yaml")
	// A port that is taken keeps the default configuration from being served next to
	// whatever uses port 3260 here; it is written nevertheless.
	if l, err := net.Listen("tcp", "127.0.0.1:3260"); err == nil {
		defer l.Close()
	}
	_, stderr, status := output(t, "serve", "--config", path, "--write-default")
	if want := "portals[0]: 127.0.0.1:3260 is in use"; status != 1 || !strings.Contains(stderr, want) {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte("volume: src")) {
		t.Errorf("configuration %q, %v", text, err)
	}
}

func TestStoreInfo(t *testing.T) {
	path := writeConfig(t, config)
	if _, stderr, status := output(t, "store", "info", "--config", path); status != 1 || !strings.Contains(stderr, "there is no store in") {
		t.Errorf("before the first start: exit status %d: %s", status, stderr)
	}
	s := startServer(t, odx("serve", "--config", path))
	served := infoOf(t, path)
	text, _, _ := output(t, "store", "info", "--config", path)
	for _, line := range []string{
		`store +\S+ +being served`, `capacity +\S+ [GTM]iB +limited by the file system; 0\.0 % in use`,
		`free +\S+ [GTM]iB +for new data; \S+ MiB more are reserved for opening and cleaning`, `warning +\S+ [GTM]iB +in use: initiators are warned .*`,
		`provisioned +128 MiB +size of all volumes and files, \S+ % of the capacity`, `logical +0 B +written: 0 B to 2 volumes, 0 B to 0 files`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(text) {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Fatal(err)
	}
	if closed := infoOf(t, path); closed.ID != served.ID || fmt.Sprint(closed.Volumes) != fmt.Sprint(served.Volumes) {
		t.Errorf("served:     %+v\nnot served: %+v", served, closed)
	}
	if text, _, _ := output(t, "store", "info", "--config", path); !strings.Contains(text, "not being served") ||
		!regexp.MustCompile(`(?m)^volume +src +64MiB, 0 B written$`).MatchString(text) {
		t.Errorf("while it is not served:\n%s", text)
	}
}

type infoJSON struct {
	ID      string `json:"id"`
	Volumes []struct {
		Name string `json:"name"`
		Size int64  `json:"size_bytes"`
	} `json:"volumes"`
	Logical  *int64   `json:"logical_bytes"`
	Physical *int64   `json:"physical_bytes"`
	Ratio    *float64 `json:"dedup_ratio"`
	Tokens   *struct {
		Count int `json:"count"`
	} `json:"tokens"`
}

// infoOf returns what odx store info --json says, all of which has to be there.
func infoOf(t *testing.T, path string, args ...string) infoJSON {
	t.Helper()
	stdout, stderr, status := output(t, append([]string{"store", "info", "--config", path, "--json"}, args...)...)
	var i infoJSON
	if err := json.Unmarshal([]byte(stdout), &i); status != 0 || err != nil {
		t.Fatalf("exit status %d, %v: %s%s", status, err, stdout, stderr)
	}
	if len(i.ID) != 32 || len(i.Volumes) != 2 || i.Volumes[1].Name != "src" || i.Volumes[1].Size != 64<<20 ||
		i.Logical == nil || i.Physical == nil || i.Ratio == nil || i.Tokens == nil {
		t.Errorf("incomplete: %s", stdout)
	}
	return i
}

func TestVersion(t *testing.T) {
	text, _, status := output(t, "version")
	if status != 0 || !regexp.MustCompile(`^odx \S+ \(go\S+, \w+/\w+\)\n$`).MatchString(text) {
		t.Errorf("exit status %d: %q", status, text)
	}
	if flag, _, status := output(t, "--version"); status != 0 || flag != text {
		t.Errorf("--version: exit status %d: %q", status, flag)
	}
	var v struct{ Version, Go, Platform string }
	text, _, _ = output(t, "version", "--json")
	if err := json.Unmarshal([]byte(text), &v); err != nil || v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("%q: %v", text, err)
	}
}

// TestConfigPath: without --config the environment, the working directory and the
// system are asked, in this order.
func TestConfigPath(t *testing.T) {
	path := writeConfig(t, config)
	run := func(dir string, env ...string) string {
		cmd := odx("volume", "list")
		cmd.Dir, cmd.Env = dir, append(cmd.Env, env...)
		text, _ := cmd.CombinedOutput()
		return string(text)
	}
	const found = "there is no store in "
	if got := run(t.TempDir(), "ODX_CONFIG="+path); !strings.Contains(got, path+":1: data_dir: "+found) {
		t.Errorf("of the environment: %s", got)
	}
	if got := run(filepath.Dir(path)); !strings.Contains(got, "odx.yaml:1: data_dir: "+found) {
		t.Errorf("of the working directory: %s", got)
	}
	open := filepath.Dir(writeConfig(t, config))
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if got, want := run(open), "odx: odx.yaml is not used: the directory . is world-writable (mode 0777); if you trust it, use --config odx.yaml\n"; got != want {
		t.Errorf("of a directory that all may write to: got %swant %s", got, want)
	}
	if got := run(filepath.Dir(path), "ODX_CONFIG=/none/odx.yaml"); !strings.Contains(got, "there is no configuration /none/odx.yaml; use --config or $ODX_CONFIG") {
		t.Errorf("the environment is first: %s", got)
	}
	if _, err := os.Stat(conf.System); err == nil {
		t.Skipf("there is %s on this machine", conf.System)
	}
	if got := run(t.TempDir()); !strings.Contains(got, "there is no configuration odx.yaml; ") {
		t.Errorf("none: %s", got)
	}
}

// If a port is in use at the first start, nothing is created.
func TestServeRefused_LeavesNoStore(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := writeConfig(t, strings.Replace(config, "127.0.0.1:0", l.Addr().String(), 1))
	if _, stderr, status := output(t, "serve", "--config", path); status != 1 || !strings.Contains(stderr, " is in use by another program") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "data")); !os.IsNotExist(err) {
		t.Errorf("there is a store: %v", err)
	}
}
