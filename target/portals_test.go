package target

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"odx/admin"
	"odx/conf"
	remote "odx/initiator"
	"odx/internal/kit/harness"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// freePort returns a TCP port that nothing listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// onPortals is a configuration with portals.
func onPortals(portals string) string {
	return "data_dir: data\nportals: [" + portals + "]\n" +
		"targets: [{name: iqn.2026-11.example.odx:disks, luns: [{lun: 0, volume: src, size: 64MiB}]}]\n"
}

// TestPortals_Bind: a portal that cannot be bound keeps the others from nothing; it
// is logged, shown, and answers once it can be bound.
func TestPortals_Bind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// 203.0.113.1 is for documentation (RFC 5737).
	text := onPortals(fmt.Sprintf(`"127.0.0.1:0", "203.0.113.1:3260", "%s"`, taken.Addr()))
	s, log := startLogging(t, parse(t, t.TempDir(), text))
	if n := len(s.Portals()); n != 1 {
		t.Errorf("%d portals answer, want 1", n)
	}
	missing := s.MissingPortals()
	if len(missing) != 2 || missing[0].Address != "203.0.113.1:3260" || !strings.Contains(missing[0].Problem, "is not an address of this machine") ||
		!strings.Contains(missing[1].Problem, "is in use by another program") {
		t.Fatalf("missing: %+v", missing)
	}
	for _, key := range []string{"portals[1]", "portals[2]"} {
		if !strings.Contains(log.String(), key) {
			t.Errorf("the log does not name %s:\n%s", key, log.String())
		}
	}
	st, err := s.admin.Status(t.Context())
	if err != nil || len(st.MissingPortals) != 2 || len(st.Portals) != 1 {
		t.Errorf("status: %+v", st)
	}
}

// TestPortals_BindMissing: a portal answers as soon as its address is there.
func TestPortals_BindMissing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	cfg := parse(t, t.TempDir(), onPortals(`"127.0.0.1:0", "`+address+`"`))
	s := newService(logs.Discard())
	s.portals.retry = time.Millisecond
	if err := s.start(t.Context(), cfg, admin.Options{}, Inheritance{}); err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	taken.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		d, err := remote.Open(t.Context(), remote.Options{URL: remote.URL{Address: address, Target: "iqn.2026-11.example.odx:disks"}})
		if err == nil {
			d.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if len(s.MissingPortals()) != 0 || len(s.Portals()) != 2 {
		t.Errorf("missing %v, answering %v", s.MissingPortals(), s.Portals())
	}
}

// TestPortals_NoneBound: a service that no initiator can reach does not start, and every
// portal is named.
func TestPortals_NoneBound(t *testing.T) {
	_, err := Start(t.Context(), parse(t, t.TempDir(), onPortals(`"198.51.100.1:3260", "203.0.113.1:3260"`)), logs.Discard())
	var problems conf.Problems
	if !errors.As(err, &problems) || len(problems) != 2 {
		t.Fatalf("%T: %v", err, err)
	}
}

// TestPortals_Advertise: discovery reports the address that stands in the file.
func TestPortals_Advertise(t *testing.T) {
	port := freePort(t)
	s := start(t, parse(t, t.TempDir(), onPortals(fmt.Sprintf(`{address: "127.0.0.1:%d,3", advertise: "203.0.113.5:13260"}`, port))))
	nc, err := net.Dial("tcp", s.Portals()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	send := func(header []byte, text string) string {
		t.Helper()
		pdu := append(make([]byte, 0, 1024), header...)
		pdu[7] = byte(len(text))
		pdu = append(append(pdu, text...), make([]byte, -len(text)&3)...)
		if _, err := nc.Write(pdu); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 8192)
		n, err := nc.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer[min(n, 48):n])
	}
	login := make([]byte, 48)
	login[0], login[1], login[8] = 0x43, 0x87, 0x80
	send(login, "InitiatorName=iqn.2026-11.example:a\x00SessionType=Discovery\x00")
	ask := make([]byte, 48)
	ask[0], ask[1] = 0x04, 0x80
	copy(ask[20:24], "\xff\xff\xff\xff")
	if got := send(ask, "SendTargets=All\x00"); !strings.Contains(got, "TargetAddress=203.0.113.5:13260,3\x00") || strings.Contains(got, "127.0.0.1") {
		t.Errorf("discovery answers %q", got)
	}
}

// TestRedirect_ToItself: a redirect to a portal of the server's own, however it is
// written, is an error of the configuration.
func TestRedirect_ToItself(t *testing.T) {
	port := freePort(t)
	for _, c := range []struct {
		portal, to string
		own        bool
	}{
		{`"127.0.0.1:%d"`, "127.0.0.1:%d", true},
		{`"127.0.0.1:%d"`, "localhost:%d", true},
		{`"0.0.0.0:%d"`, "127.0.0.1:%d", true},
		{`"0.0.0.0:%d"`, "127.0.0.9:%d", true},
		{`"[::]:%d"`, "[::1]:%d", true},
		{`{address: "127.0.0.1:%d", advertise: "203.0.113.5:3260"}`, "203.0.113.5:3260", true},
		{`"127.0.0.1:%d"`, "127.0.0.1:1", false},
		{`"0.0.0.0:%d"`, "203.0.113.5:%d", false},
		{`"0.0.0.0:%d"`, "[::1]:%d", false},
		{`"127.0.0.1:%d"`, "127.0.0.2:%d", false},
		{`"127.0.0.1:%d"`, "elsewhere.invalid:%d", false},
	} {
		at := func(text string) string { return strings.ReplaceAll(text, "%d", fmt.Sprint(port)) }
		cfg := parse(t, t.TempDir(), "data_dir: data\nportals: ["+at(c.portal)+"]\n"+
			"targets: [{name: iqn.2026-11.example.odx:disks, redirect: {to: \""+at(c.to)+"\"}}]\n")
		s, err := Start(t.Context(), cfg, logs.Discard())
		if err == nil {
			stop(t, s)
		}
		var problems conf.Problems
		if own := errors.As(err, &problems) && problems[0].Key == "targets[0].redirect.to"; own != c.own || !c.own && err != nil {
			t.Errorf("%s redirects to %s: %v", at(c.portal), at(c.to), err)
		}
	}
}

// TestLUN_above255: the URLs that are printed of LUNs above 255 open with libiscsi.
func TestLUN_above255(t *testing.T) {
	program := harness.Program(t, "iscsi-inq", "libiscsi-bin")
	s := start(t, parse(t, t.TempDir(), `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: [{lun: 255, volume: a, size: 1MiB}, {lun: 256, volume: b, size: 1MiB}, {lun: 300, volume: c, size: 1MiB}, {lun: 16383, volume: d, size: 1MiB}]
`))
	for _, l := range s.LUNs() {
		out, err := exec.CommandContext(t.Context(), program, l.URLs[0]).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "DIRECT_ACCESS") || strings.Contains(string(out), "Qualifier:DISCONNECTED") {
			t.Errorf("%s: %v\n%s", l.URLs[0], err, out)
		}
	}
}

// TestService_movePortals: a portal is withdrawn after it was offered, however soon a reload
// takes it out again: a duplicate of its socket would keep the address in use.
func TestService_movePortals(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), one()))
	offered := func(address string) bool {
		s.listening.mu.Lock()
		defer s.listening.mu.Unlock()
		return slices.ContainsFunc(s.listening.sockets, func(k Socket) bool { return k.Address == address })
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // what a reload starts runs after it
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must.Succeed(t, err)
		address := l.Addr().String()
		host, port, err := net.SplitHostPort(address)
		must.Succeed(t, err)
		number, err := strconv.ParseUint(port, 10, 16)
		must.Succeed(t, err)
		p := portal{Portal: conf.Portal{Host: host, Port: uint16(number), Group: 1}, listener: l}
		s.movePortals(&nextPortals{bound: []portal{p}}, &admin.Reloaded{})
		if !offered(address) {
			t.Error("the portal is not offered when the reload that adds it ends")
		}
		s.movePortals(&nextPortals{left: []portal{p}}, &admin.Reloaded{})
		if again, err := net.Listen("tcp", address); err != nil {
			t.Errorf("the address is still in use: %v", err)
		} else {
			must.Succeed(t, again.Close())
		}
	}
}
