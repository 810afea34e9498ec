//go:build rados

package librados

// #cgo LDFLAGS: -lrados
// #include <errno.h>
// #include <stdlib.h>
// #include <rados/librados.h>
import "C"

import (
	"fmt"
	"io/fs"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"odx/backstore/vfs/rados"
)

const (
	// epochName is the attribute that has the epoch of an object.
	epochName = "epoch"
	lockName  = "owner"
	// rowsAtOnce is how many rows of an omap one operation reads.
	rowsAtOnce = 10000
)

// Options say how to reach a pool.
type Options struct {
	Conf      string // path of ceph.conf; "" means where Ceph's own tools look
	User      string // as client.odx; "" means client.admin
	Keyring   string // path; "" means what the configuration says
	Pool      string
	Namespace string // of the objects: the shard
	// Timeout is when the outcome of an operation counts as unknown, in whole seconds.
	Timeout time.Duration
}

// Pool is a connection to a pool. It implements rados.Pool.
type Pool struct {
	cluster C.rados_t
	io      C.rados_ioctx_t
	id      [16]byte

	mu     sync.RWMutex // guards closed; held for reading while the connection is used
	closed bool
}

var _ rados.Pool = (*Pool)(nil)

// Open connects to a pool. From then on the process ignores SIGPIPE: a thread of librados
// that writes to a connection which the other side has closed, as after the process was
// stopped for a while, would end it.
func Open(o Options) (_ *Pool, err error) {
	signal.Ignore(syscall.SIGPIPE)
	p := &Pool{}
	user := o.User
	if user == "" {
		user = "client.admin"
	}
	if code := withStrings(func(s []*C.char) C.int { return C.rados_create2(&p.cluster, s[0], s[1], 0) }, "ceph", user); code != 0 {
		return nil, fmt.Errorf("librados: %w", errorOf(code))
	}
	defer func() {
		if err != nil {
			C.rados_shutdown(p.cluster)
		}
	}()
	if err := p.configure(o); err != nil {
		return nil, err
	}
	if code := C.rados_connect(p.cluster); code != 0 {
		return nil, fmt.Errorf("connect to Ceph as %s: %w", user, errorOf(code))
	}
	if code := withStrings(func(s []*C.char) C.int { return C.rados_ioctx_create(p.cluster, s[0], &p.io) }, o.Pool); code != 0 {
		return nil, fmt.Errorf("pool %s: %w", o.Pool, errorOf(code))
	}
	withStrings(func(s []*C.char) C.int { C.rados_ioctx_set_namespace(p.io, s[0]); return 0 }, o.Namespace)
	return p, p.identify()
}

// configure reads ceph.conf, and sets what odx relies on.
func (p *Pool) configure(o Options) error {
	var code C.int
	if o.Conf == "" {
		code = C.rados_conf_read_file(p.cluster, nil)
	} else {
		code = withStrings(func(s []*C.char) C.int { return C.rados_conf_read_file(p.cluster, s[0]) }, o.Conf)
	}
	if code != 0 {
		return fmt.Errorf("%s: %w", o.Conf, errorOf(code))
	}
	seconds := strconv.Itoa(int(max(o.Timeout, time.Second).Seconds()))
	settings := [][2]string{{"rados_osd_op_timeout", seconds}, {"rados_mon_op_timeout", seconds}, {"client_mount_timeout", seconds}}
	if o.Keyring != "" {
		settings = append(settings, [2]string{"keyring", o.Keyring})
	}
	for _, s := range settings {
		if code := withStrings(func(c []*C.char) C.int { return C.rados_conf_set(p.cluster, c[0], c[1]) }, s[0], s[1]); code != 0 {
			return fmt.Errorf("set %s of librados: %w", s[0], errorOf(code))
		}
	}
	return nil
}

// identify reads the identity of cluster and pool.
func (p *Pool) identify() error {
	buf := make([]byte, 64)
	n := C.rados_cluster_fsid(p.cluster, (*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)))
	if n < 0 {
		return fmt.Errorf("identity of the cluster: %w", errorOf(n))
	}
	hex := strings.ReplaceAll(string(buf[:n]), "-", "")
	for i := range p.id {
		if 2*i+2 <= len(hex) {
			b, _ := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
			p.id[i] = byte(b)
		}
	}
	pool := uint64(C.rados_ioctx_get_id(p.io))
	for i := range 8 {
		p.id[15-i] ^= byte(pool >> (8 * i))
	}
	return nil
}

// enter permits the use of the connection until leave is called, or returns an error.
func (p *Pool) enter() (leave func(), err error) {
	p.mu.RLock()
	if p.closed {
		p.mu.RUnlock()
		return nil, fmt.Errorf("connection to Ceph: %w", fs.ErrClosed)
	}
	return p.mu.RUnlock, nil
}

// Close ends the connection, when the operations that were begun have ended. From then on all
// others fail.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		C.rados_aio_flush(p.io)
		C.rados_ioctx_destroy(p.io)
		C.rados_shutdown(p.cluster)
	}
	p.closed = true
	return nil
}

// ID implements rados.Pool.
func (p *Pool) ID() [16]byte { return p.id }

// epochValue returns an epoch as an attribute: the order of these is that of epochs. No
// attribute is epoch 0.
func epochValue(epoch uint64) string {
	if epoch == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", epoch)
}

// Begin implements rados.Pool.
func (p *Pool) Begin(object string, c *rados.Change) rados.Pending {
	leave, err := p.enter()
	if err != nil {
		return failed{err}
	}
	defer leave()
	op := C.rados_create_write_op()
	defer C.rados_release_write_op(op)
	if c.Create {
		C.rados_write_op_create(op, C.LIBRADOS_CREATE_EXCLUSIVE, nil)
	} else {
		C.rados_write_op_assert_exists(op)
	}
	addEpochs(op, c)
	if c.Truncate {
		C.rados_write_op_truncate(op, C.uint64_t(c.Length))
	}
	if len(c.Data) > 0 {
		C.rados_write_op_write(op, (*C.char)(unsafe.Pointer(&c.Data[0])), C.size_t(len(c.Data)), C.uint64_t(c.Off)) // copies
	}
	addRows(op, c)
	if c.Remove {
		C.rados_write_op_remove(op)
	}
	w := &pending{}
	if code := C.rados_aio_create_completion2(nil, nil, &w.c); code != 0 {
		return failed{errorOf(code)}
	}
	// A full pool is an error at once; by default operations wait until it is not full.
	code := withStrings(func(s []*C.char) C.int {
		return C.rados_aio_write_op_operate(op, p.io, w.c, s[0], nil, C.LIBRADOS_OPERATION_FULL_TRY)
	}, object)
	if code != 0 {
		C.rados_aio_release(w.c)
		return failed{errorOf(code)}
	}
	return w
}

// addEpochs adds the comparison, and the new epoch.
func addEpochs(op C.rados_write_op_t, c *rados.Change) {
	value := epochValue(c.Epoch)
	compare := map[rados.Compare]C.uint8_t{rados.Equal: C.LIBRADOS_CMPXATTR_OP_EQ, rados.NoLater: C.LIBRADOS_CMPXATTR_OP_GTE}
	if how, ok := compare[c.Compare]; ok {
		withStrings(func(s []*C.char) C.int {
			C.rados_write_op_cmpxattr(op, s[0], how, s[1], C.size_t(len(value)))
			return 0
		}, epochName, value)
	}
	if c.SetEpoch != 0 {
		value := epochValue(c.SetEpoch)
		withStrings(func(s []*C.char) C.int {
			C.rados_write_op_setxattr(op, s[0], s[1], C.size_t(len(value)))
			return 0
		}, epochName, value)
	}
}

// addRows adds changes of the omap.
func addRows(op C.rados_write_op_t, c *rados.Change) {
	if len(c.Set) > 0 {
		var keys, values cStrings
		for key, value := range c.Set {
			keys.add([]byte(key))
			values.add(value)
		}
		C.rados_write_op_omap_set2(op, &keys.at[0], &values.at[0], &keys.lengths[0], &values.lengths[0], C.size_t(len(keys.at)))
		keys.free()
		values.free()
	}
	if len(c.Unset) > 0 {
		var keys cStrings
		for _, key := range c.Unset {
			keys.add([]byte(key))
		}
		C.rados_write_op_omap_rm_keys2(op, &keys.at[0], &keys.lengths[0], C.size_t(len(keys.at)))
		keys.free()
	}
}

// cStrings are strings in the memory of C.
type cStrings struct {
	at      []*C.char
	lengths []C.size_t
}

func (s *cStrings) add(b []byte) {
	s.at = append(s.at, (*C.char)(C.CBytes(append(b[:len(b):len(b)], 0))))
	s.lengths = append(s.lengths, C.size_t(len(b)))
}

func (s *cStrings) free() {
	for _, p := range s.at {
		C.free(unsafe.Pointer(p))
	}
}

// withStrings calls fn with strings of C, which end with it.
func withStrings(fn func(s []*C.char) C.int, strs ...string) C.int {
	all := make([]*C.char, len(strs))
	for i, s := range strs {
		all[i] = C.CString(s)
		defer C.free(unsafe.Pointer(all[i]))
	}
	return fn(all)
}

// pending is an operation that was begun.
type pending struct{ c C.rados_completion_t }

// Wait implements rados.Pending.
func (w *pending) Wait() error {
	C.rados_aio_wait_for_complete(w.c)
	code := C.rados_aio_get_return_value(w.c)
	C.rados_aio_release(w.c)
	return errorOf(code)
}

// failed is an operation that was not begun.
type failed struct{ err error }

func (f failed) Wait() error { return f.err }

// Read implements rados.Pool.
func (p *Pool) Read(object string, b []byte, off int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	leave, err := p.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	n := withStrings(func(s []*C.char) C.int {
		return C.rados_read(p.io, s[0], (*C.char)(unsafe.Pointer(&b[0])), C.size_t(len(b)), C.uint64_t(off))
	}, object)
	if n < 0 {
		return 0, errorOf(n)
	}
	return int(n), nil
}

// Length implements rados.Pool.
func (p *Pool) Length(object string) (int64, error) {
	leave, err := p.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	var size C.uint64_t
	code := withStrings(func(s []*C.char) C.int { return C.rados_stat(p.io, s[0], &size, nil) }, object)
	return int64(size), errorOf(code)
}

// Rows implements rados.Pool.
func (p *Pool) Rows(object string) (rows map[string][]byte, epoch uint64, err error) {
	for {
		rows, epoch = make(map[string][]byte), 0
		first, more, last := true, true, ""
		same := true
		for more && same {
			var now uint64
			if now, more, last, err = p.someRows(object, last, rows); err != nil {
				return nil, 0, err
			}
			same = first || now == epoch
			first, epoch = false, now
		}
		if same {
			return rows, epoch, nil
		}
	}
}

// someRows reads rows after a key, and the epoch, in one operation.
func (p *Pool) someRows(object, after string, rows map[string][]byte) (epoch uint64, more bool, last string, err error) {
	leave, err := p.enter()
	if err != nil {
		return 0, false, "", err
	}
	defer leave()
	op := C.rados_create_read_op()
	defer C.rados_release_read_op(op)
	var it C.rados_omap_iter_t
	var attrs C.rados_xattrs_iter_t
	var again C.uchar
	var c1, c2 C.int
	code := withStrings(func(s []*C.char) C.int {
		C.rados_read_op_assert_exists(op)
		C.rados_read_op_omap_get_vals2(op, s[1], nil, rowsAtOnce, &it, &again, &c1)
		C.rados_read_op_getxattrs(op, &attrs, &c2)
		return C.rados_read_op_operate(op, p.io, s[0], 0)
	}, object, after)
	for _, c := range []C.int{code, c1, c2} {
		if c < 0 {
			return 0, false, "", errorOf(c)
		}
	}
	defer C.rados_omap_get_end(it)
	defer C.rados_getxattrs_end(attrs)
	last = after
	for {
		var key, value *C.char
		var keyLength, length C.size_t
		if code := C.rados_omap_get_next2(it, &key, &value, &keyLength, &length); code < 0 {
			return 0, false, "", errorOf(code)
		}
		if key == nil {
			break
		}
		last = C.GoStringN(key, C.int(keyLength))
		rows[last] = C.GoBytes(unsafe.Pointer(value), C.int(length))
	}
	for {
		var name, value *C.char
		var length C.size_t
		if code := C.rados_getxattrs_next(attrs, &name, &value, &length); code < 0 {
			return 0, false, "", errorOf(code)
		}
		if name == nil {
			return epoch, again != 0, last, nil
		}
		if C.GoString(name) == epochName && length > 0 {
			if epoch, err = strconv.ParseUint(C.GoStringN(value, C.int(length)), 16, 64); err != nil {
				return 0, false, "", fmt.Errorf("epoch of %s: %w", object, err)
			}
		}
	}
}

// Lock implements rados.Pool.
func (p *Pool) Lock(object, cookie string, lease time.Duration, renew bool) error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	var flags C.uint8_t
	if renew {
		flags = C.LIBRADOS_LOCK_FLAG_MUST_RENEW
	}
	t := C.struct_timeval{tv_sec: C.__time_t(lease / time.Second), tv_usec: C.__suseconds_t(lease % time.Second / time.Microsecond)}
	code := withStrings(func(s []*C.char) C.int {
		return C.rados_lock_exclusive(p.io, s[0], s[1], s[2], s[3], &t, flags)
	}, object, lockName, cookie, "odx")
	if code == -C.EEXIST {
		code = -C.EBUSY // by this very client
	}
	return errorOf(code)
}

// Unlock implements rados.Pool.
func (p *Pool) Unlock(object, cookie string) error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	code := withStrings(func(s []*C.char) C.int { return C.rados_unlock(p.io, s[0], s[1], s[2]) }, object, lockName, cookie)
	if code == -C.ENOENT {
		return nil
	}
	return errorOf(code)
}

// Break implements rados.Pool.
func (p *Pool) Break(object string, h rados.Holder) error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	code := withStrings(func(s []*C.char) C.int { return C.rados_break_lock(p.io, s[0], s[1], s[2], s[3]) }, object, lockName, h.Client, h.Cookie)
	if code == -C.ENOENT {
		return nil
	}
	return errorOf(code)
}

// Holder implements rados.Pool.
func (p *Pool) Holder(object string) (rados.Holder, error) {
	leave, err := p.enter()
	if err != nil {
		return rados.Holder{}, err
	}
	defer leave()
	// An exclusive lock has one holder; each text ends with a zero byte.
	var exclusive C.int
	var texts [4][lockText]byte // tag, client, cookie, address
	var lengths [4]C.size_t
	at := func(i int) *C.char { return (*C.char)(unsafe.Pointer(&texts[i][0])) }
	for i := range lengths {
		lengths[i] = lockText
	}
	n := withStrings(func(s []*C.char) C.int {
		return C.int(C.rados_list_lockers(p.io, s[0], s[1], &exclusive, at(0), &lengths[0], at(1), &lengths[1], at(2), &lengths[2], at(3), &lengths[3]))
	}, object, lockName)
	if n < 0 && n != -C.ENOENT {
		return rados.Holder{}, errorOf(n)
	}
	if n <= 0 {
		return rados.Holder{}, nil
	}
	return rados.Holder{Cookie: C.GoString(at(2)), Client: C.GoString(at(1)), Address: C.GoString(at(3))}, nil
}

// lockText is the longest text of a holder of the lock, in bytes.
const lockText = 512

// Space implements rados.Pool.
func (p *Pool) Space() (free, total int64, err error) {
	leave, err := p.enter()
	if err != nil {
		return 0, 0, err
	}
	defer leave()
	var st C.struct_rados_cluster_stat_t
	if code := C.rados_cluster_stat(p.cluster, &st); code != 0 {
		return 0, 0, errorOf(code)
	}
	return int64(st.kb_avail) << 10, int64(st.kb) << 10, nil
}

// errorOf returns the error of a return value of librados.
func errorOf(code C.int) error {
	switch -code {
	case 0:
		return nil
	case C.ENOENT:
		return fs.ErrNotExist
	case C.EEXIST:
		return fs.ErrExist
	case C.EBUSY:
		return rados.ErrBusy
	case C.ECANCELED, C.ESHUTDOWN: // the latter: the client is on the blocklist
		return fmt.Errorf("%w: %w", rados.ErrRefused, syscall.Errno(-code))
	case C.ETIMEDOUT:
		return fmt.Errorf("%w: %w", rados.ErrUnknown, syscall.Errno(-code))
	case C.EDQUOT:
		return fmt.Errorf("%w: quota of the pool", syscall.ENOSPC)
	}
	if code > 0 {
		return nil
	}
	return syscall.Errno(-code)
}
