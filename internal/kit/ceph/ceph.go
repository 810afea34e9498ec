// Package ceph runs a Ceph cluster of one monitor and some OSDs on one address, for tests: real daemons of the distribution's packages, in a directory, with authentication
// on. The daemons are children of the test and end with it.
package ceph

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options say what a cluster is made of.
type Options struct {
	OSDs int // 0 means 1
	// OnDisk keeps data in files (bluestore), so that it outlives an OSD; else in memory.
	OnDisk bool
	// Address is the IPv4 address of this machine that all daemons have; "" means 127.0.0.1.
	Address string
}

const (
	poolName = "odx"
	userName = "client.odx"
	// patience is how long a step of the start may take on a busy machine.
	patience = time.Minute
)

// Cluster is a running cluster.
type Cluster struct {
	dir     string
	o       Options
	fsid    string
	port    int // the monitor's; the OSDs use those that follow
	daemons map[string]*exec.Cmd
	threads sync.WaitGroup
	stopped chan struct{}
}

// Conf returns the path of ceph.conf.
func (c *Cluster) Conf() string { return filepath.Join(c.dir, "ceph.conf") }

// Keyring returns the path of the key of User.
func (c *Cluster) Keyring() string { return filepath.Join(c.dir, userName+".keyring") }

// User returns the name of the client that may use Pool.
func (c *Cluster) User() string { return userName }

// Pool returns the name of the pool.
func (c *Cluster) Pool() string { return poolName }

// programs are what has to be installed.
var programs = []string{"ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool"}

// Missing returns why there can be no cluster on this machine, or "".
func Missing() string {
	var missing []string
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "not installed: " + strings.Join(missing, ", ") + " (packages ceph-mon, ceph-osd, ceph-common; make setup)"
}

// Main runs the tests of a package with a cluster that it passes to set. Where Ceph is not
// installed, that is a failure in CI, and elsewhere said.
func Main(m *testing.M, o Options, set func(*Cluster)) int {
	if why := Missing(); why != "" {
		fmt.Fprintln(os.Stderr, "ceph:", why)
		if os.Getenv("CI") == "true" {
			return 1
		}
		return 0
	}
	dir, err := os.MkdirTemp("", "ceph")
	if err != nil {
		fmt.Fprintln(os.Stderr, "ceph:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	c, err := Start(dir, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ceph:", err)
		return 1
	}
	defer c.Stop()
	set(c)
	return m.Run()
}

// Start makes a cluster in an empty directory, whose path is short: sockets are in it.
func Start(dir string, o Options) (_ *Cluster, err error) {
	if o.OSDs == 0 {
		o.OSDs = 1
	}
	if o.Address == "" {
		o.Address = "127.0.0.1"
	}
	c := &Cluster{dir: dir, o: o, fsid: uuid(), daemons: make(map[string]*exec.Cmd), stopped: make(chan struct{})}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if c.port, err = freePorts(o.Address, 1+8*o.OSDs); err != nil {
		return nil, err
	}
	for _, step := range []func() error{c.configure, c.makeKeys, c.startMonitor, c.startOSDs, c.makePool} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&15|0x40, b[8]&63|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// freePorts returns the first of n free ports in a row of an address.
func freePorts(address string, n int) (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", address+":0")
		if err != nil {
			return 0, err
		}
		first := l.Addr().(*net.TCPAddr).Port
		open := []net.Listener{l}
		for i := 1; i < n; i++ {
			if l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, first+i)); err == nil {
				open = append(open, l)
			}
		}
		for _, l := range open {
			l.Close()
		}
		if len(open) == n {
			return first, nil
		}
	}
	return 0, errors.New("no free ports in a row")
}

func (c *Cluster) configure() error {
	store := "memstore"
	if c.o.OnDisk {
		store = "bluestore"
	}
	size := min(c.o.OSDs, 3)
	text := fmt.Sprintf(`[global]
fsid = %[1]s
mon_host = [v2:%[8]s:%[2]d]
public_addr = %[8]s
cluster_addr = %[8]s
ms_bind_msgr1 = false
ms_bind_ipv6 = false
ms_bind_port_min = %[3]d
ms_bind_port_max = %[4]d
keyring = %[5]s/$name.keyring
run_dir = %[5]s
admin_socket = %[5]s/$name.asok
log_file = %[5]s/$name.log
crash_dir = %[5]s
auth_allow_insecure_global_id_reclaim = false
osd_crush_chooseleaf_type = 0
osd_pool_default_size = %[6]d
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_data_avail_crit = 0
mon_data_avail_warn = 0
osd_objectstore = %[7]s
memstore_device_bytes = 4294967296
bluestore_block_size = 4294967296
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
osd_class_update_on_start = true
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
ms_async_op_threads = 2
paxos_propose_interval = 0.05
[mon]
mon_data = %[5]s/$name
[osd]
osd_data = %[5]s/$name
`, c.fsid, c.port, c.port+1, c.port+8*c.o.OSDs, c.dir, size, store, c.o.Address)
	return os.WriteFile(c.Conf(), []byte(text), 0o600)
}

// run runs a program of Ceph.
func (c *Cluster) run(input, name string, args ...string) error {
	cmd := exec.Command(name, append([]string{"-c", c.Conf()}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return nil
}

// admin runs commands of the cluster's administrator, a line each.
func (c *Cluster) admin(lines ...string) error {
	return c.run(strings.Join(lines, "\n")+"\n", "ceph", "--connect-timeout", fmt.Sprint(int(patience.Seconds())))
}

// makeKeys makes a keyring for each who has a key, and one of all for the monitor.
func (c *Cluster) makeKeys() error {
	caps := map[string][]string{
		"mon.":         {"--cap", "mon", "allow *"},
		"client.admin": {"--cap", "mon", "allow *", "--cap", "osd", "allow *"},
		userName:       {"--cap", "mon", "allow r, allow command \"osd blocklist\"", "--cap", "osd", "allow rwx pool=" + poolName},
	}
	for i := range c.o.OSDs {
		caps[fmt.Sprintf("osd.%d", i)] = []string{"--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"}
	}
	all := filepath.Join(c.dir, "all.keyring")
	if err := os.WriteFile(all, nil, 0o600); err != nil {
		return err
	}
	for name, caps := range caps {
		file := filepath.Join(c.dir, name+".keyring")
		if err := c.run("", "ceph-authtool", append([]string{"-C", file, "-g", "-n", name}, caps...)...); err != nil {
			return err
		}
		if err := c.run("", "ceph-authtool", all, "--import-keyring", file); err != nil {
			return err
		}
	}
	return nil
}

// start starts a daemon, which is killed when the test dies.
func (c *Cluster) start(kind, id string) error {
	name := kind + "." + id
	log, err := os.Create(filepath.Join(c.dir, name+".out"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("ceph-"+kind, "-c", c.Conf(), "-i", id, "-f")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	c.threads.Go(func() {
		// The kernel kills the daemon when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- cmd.Start()
		<-c.stopped
	})
	if err := <-started; err != nil {
		return err
	}
	c.daemons[name] = cmd
	return nil
}

func (c *Cluster) startMonitor() error {
	monmap := filepath.Join(c.dir, "monmap")
	if err := c.run("", "monmaptool", "--create", "--clobber", "--fsid", c.fsid, "--set-min-mon-release", "pacific",
		"--addv", "a", fmt.Sprintf("[v2:%s:%d]", c.o.Address, c.port), monmap); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(c.dir, "mon.a"), 0o700); err != nil {
		return err
	}
	if err := c.run("", "ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", filepath.Join(c.dir, "all.keyring")); err != nil {
		return err
	}
	return c.start("mon", "a")
}

func (c *Cluster) startOSDs() error {
	lines := []string{"osd set-require-min-compat-client luminous"}
	ids := make([]string, c.o.OSDs)
	for i := range ids {
		ids[i] = uuid()
		lines = append(lines, fmt.Sprintf("osd new %s %d", ids[i], i))
	}
	if err := c.admin(lines...); err != nil {
		return err
	}
	for i, id := range ids {
		name := fmt.Sprintf("osd.%d", i)
		if err := os.Mkdir(filepath.Join(c.dir, name), 0o700); err != nil {
			return err
		}
		if err := c.run("", "ceph-osd", "-i", fmt.Sprint(i), "--mkfs", "--osd-uuid", id,
			"--monmap", filepath.Join(c.dir, "monmap"), "--no-mon-config", "--keyring", filepath.Join(c.dir, name+".keyring")); err != nil {
			return err
		}
		if err := c.start("osd", fmt.Sprint(i)); err != nil {
			return err
		}
	}
	return nil
}

// makePool makes the pool. An object that can be written shows that OSDs serve it.
func (c *Cluster) makePool() error {
	if err := c.admin("osd pool create "+poolName+" 8 8 replicated", "osd pool application enable "+poolName+" odx"); err != nil {
		return err
	}
	probe := exec.Command("rados", "-c", c.Conf(), "-p", poolName, "create", "probe")
	if err := probe.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- probe.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("write to the pool: %w", err)
		}
		return nil
	case <-time.After(patience):
		_ = probe.Process.Kill()
		if err := <-done; err != nil {
			return fmt.Errorf("the pool takes no writes: %w", err)
		}
		return errors.New("the pool takes no writes")
	}
}

// Stop kills all daemons. It is called once.
func (c *Cluster) Stop() {
	for name := range c.daemons {
		c.Kill(name)
	}
	close(c.stopped)
	c.threads.Wait()
}

// Kill kills a daemon, as "osd.0".
func (c *Cluster) Kill(name string) {
	cmd := c.daemons[name]
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // it is gone already
	_ = cmd.Wait()         // killed
	delete(c.daemons, name)
}
