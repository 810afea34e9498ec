// Package ceph runs a Ceph cluster for tests: real daemons of the distribution's packages, in a
// directory, with authentication on. They have one address of this machine, or hosts of a network of
// the test. The daemons are children of the test and end with it.
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit/netns"
)

// Options say what a cluster is made of.
type Options struct {
	OSDs int // 0 means 1
	// OnDisk keeps data in files (bluestore), so that it outlives an OSD; else in memory.
	OnDisk bool
	// Address is the IPv4 address of this machine that all daemons have; "" means 127.0.0.1.
	Address string
	// Hosts, if there are any, have a monitor and an OSD each, in place of one monitor and OSDs at
	// Address.
	Hosts []*netns.Host
}

// names are those of the monitors, by number.
const names = "abcdefgh"

// monitors returns how many there are.
func (o *Options) monitors() int { return max(1, len(o.Hosts)) }

// at returns the address of the monitor and the OSD with a number.
func (o *Options) at(i int) string {
	if len(o.Hosts) == 0 {
		return o.Address
	}
	return o.Hosts[i].Address.String()
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
	if len(o.Hosts) > 0 {
		o.OSDs = len(o.Hosts)
	}
	c := &Cluster{dir: dir, o: o, fsid: uuid(), daemons: make(map[string]*exec.Cmd), stopped: make(chan struct{})}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if c.port = 6800; len(o.Hosts) == 0 { // hosts of the test's have no other servers
		if c.port, err = freePorts(o.Address, 1+8*o.OSDs); err != nil {
			return nil, err
		}
	}
	for _, step := range []func() error{c.configure, c.makeKeys, c.startMonitors, c.startOSDs, c.makePool} {
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
mon_host = %[8]s
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
osd_pool_default_min_size = %[9]d
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
mon_osd_min_down_reporters = 1
osd_heartbeat_interval = 2
osd_heartbeat_grace = 6
[mon]
mon_data = %[5]s/$name
keyring = %[5]s/mon..keyring
[osd]
osd_data = %[5]s/$name
`, c.fsid, c.port, c.port+1, c.port+8*c.o.OSDs, c.dir, size, store, strings.Join(c.monitors(), ","), max(1, size-1))
	for i := range c.o.monitors() {
		text += fmt.Sprintf("[mon.%c]\npublic_addr = %s\n", names[i], c.o.at(i))
	}
	for i := range c.o.OSDs {
		text += fmt.Sprintf("[osd.%d]\npublic_addr = %[2]s\ncluster_addr = %[2]s\n", i, c.o.at(i))
	}
	return os.WriteFile(c.Conf(), []byte(text), 0o600)
}

// monitors returns the addresses of the monitors.
func (c *Cluster) monitors() []string {
	var at []string
	for i := range c.o.monitors() {
		at = append(at, fmt.Sprintf("[v2:%s:%d]", c.o.at(i), c.port))
	}
	return at
}

// command returns a command that runs where the daemons with a number are.
func (c *Cluster) command(i int, name string, args ...string) *exec.Cmd {
	args = append([]string{"-c", c.Conf()}, args...)
	if len(c.o.Hosts) == 0 {
		return exec.Command(name, args...)
	}
	line := c.o.Hosts[i].Args(name, args...)
	return exec.Command(line[0], line[1:]...)
}

// run runs a program of Ceph.
func (c *Cluster) run(input, name string, args ...string) error {
	cmd := c.command(0, name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return nil
}

// Admin runs commands of the cluster's administrator, a line each.
func (c *Cluster) Admin(lines ...string) error {
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

// Start starts a daemon, as "osd.0", which was killed. Where data are in memory an OSD has lost its
// own.
func (c *Cluster) Start(name string) error {
	if c.daemons[name] != nil {
		return fmt.Errorf("%s runs", name)
	}
	kind, id, _ := strings.Cut(name, ".")
	number := strings.Index(names, id)
	if kind == "osd" {
		var err error
		if number, err = strconv.Atoi(id); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(c.dir, name+".out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.command(number, "ceph-"+kind, "-i", id, "-f")
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

func (c *Cluster) startMonitors() error {
	monmap := filepath.Join(c.dir, "monmap")
	args := []string{"--create", "--clobber", "--fsid", c.fsid, "--set-min-mon-release", "pacific"}
	for i, at := range c.monitors() {
		args = append(args, "--addv", names[i:i+1], at)
	}
	if err := c.run("", "monmaptool", append(args, monmap)...); err != nil {
		return err
	}
	for i := range c.o.monitors() {
		id := names[i : i+1]
		if err := os.Mkdir(filepath.Join(c.dir, "mon."+id), 0o700); err != nil {
			return err
		}
		if err := c.run("", "ceph-mon", "-i", id, "--mkfs", "--monmap", monmap, "--keyring", filepath.Join(c.dir, "all.keyring")); err != nil {
			return err
		}
		if err := c.Start("mon." + id); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startOSDs() error {
	lines := []string{"osd set-require-min-compat-client luminous"}
	ids := make([]string, c.o.OSDs)
	for i := range ids {
		ids[i] = uuid()
		lines = append(lines, fmt.Sprintf("osd new %s %d", ids[i], i))
	}
	if err := c.Admin(lines...); err != nil {
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
		if err := c.Start(name); err != nil {
			return err
		}
	}
	return nil
}

// makePool makes the pool. An object that can be written shows that OSDs serve it.
func (c *Cluster) makePool() error {
	if err := c.Admin("osd pool create "+poolName+" 8 8 replicated", "osd pool application enable "+poolName+" odx"); err != nil {
		return err
	}
	probe := c.command(0, "rados", "-p", poolName, "create", "probe")
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
