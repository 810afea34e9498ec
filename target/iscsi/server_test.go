package iscsi

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
)

// The error describes the invalid option or target.
func TestNewServer_Invalid(t *testing.T) {
	good := TargetConfig{Name: testTarget, DeviceServer: newMemDisk(0)}
	for _, c := range []struct {
		change  func(*Options)
		targets []TargetConfig
		want    string
	}{
		{func(o *Options) { o.Log = nil }, nil, "log"},
		{func(o *Options) { o.Pool = nil }, nil, "pool"},
		{func(o *Options) { o.QueueDepth = 0 }, nil, "QueueDepth"},
		{func(o *Options) { o.FirstBurstLength = o.MaxBurstLength + 1 }, nil, "FirstBurstLength"},
		{func(o *Options) { o.MaxRecvDataSegmentLength = 1 << 24 }, nil, "MaxRecvDataSegmentLength"},
		{nil, []TargetConfig{good, good}, "duplicate"},
		{nil, []TargetConfig{{Name: "IQN.2026-11.example.odx:A", DeviceServer: good.DeviceServer}}, "lower case"},
		{nil, []TargetConfig{{Name: "", DeviceServer: good.DeviceServer}}, "iSCSI name"},
		{nil, []TargetConfig{{Name: testTarget}}, "device server"},
	} {
		t.Run(c.want, func(t *testing.T) {
			o := DefaultOptions()
			if c.change != nil {
				c.change(&o)
			}
			if _, err := NewServer(o, c.targets); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %s", err, c.want)
			}
		})
	}
}

// The error of a failed portal has its address. After Shutdown, Serve returns ErrClosed.
func TestServer_Serve(t *testing.T) {
	b := newBench(t, nil, nil)
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	broken := listen()
	broken.Close()
	if err := b.srv.Serve(context.Background(), Portal{Listener: broken, Group: 1}); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), broken.Addr().String()) {
		t.Errorf("Serve on a closed portal: %v", err)
	}
	i := b.login()
	i.logout()
	if err := b.srv.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := b.srv.Serve(context.Background(), Portal{Listener: listen(), Group: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	if err := b.srv.Shutdown(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("second Shutdown: %v", err)
	}
}

// Discovery and a session over IPv6.
func TestServer_IPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on this machine: %v", err)
	}
	b := newBench(t, nil, func(other net.Listener) net.Listener {
		other.Close()
		return l
	})
	b.addr = l.Addr().String()
	b.login().alive()
	if got := b.discovery().text("SendTargets=" + testTarget); got != "TargetName="+testTarget+" TargetAddress="+b.addr+",7" {
		t.Errorf("answer %q", got)
	}
}
