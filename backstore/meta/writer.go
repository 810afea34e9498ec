package meta

// Writer collects Ops and applies them in order, in pieces that fit one
// Update. Each piece is atomic, the whole is not. It is not for concurrent
// use. After an error the rest is dropped, and every call returns the error.
type Writer struct {
	kv    KV
	ops   []Op
	arena []byte // what ops point into; its capacity never grows
	err   error
}

// NewWriter returns a Writer to kv. It takes 2 MiB of memory until Close.
func NewWriter(kv KV) *Writer {
	return &Writer{kv: kv, arena: make([]byte, 0, MaxBytes)}
}

// Put sets a key. The slices are copied.
func (w *Writer) Put(key, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	return w.add(key, value)
}

// Delete removes a key.
func (w *Writer) Delete(key []byte) error { return w.add(key, nil) }

func (w *Writer) add(key, value []byte) error {
	if w.err != nil {
		return w.err
	}
	if w.err = check([]Op{{key, value}}); w.err != nil {
		return w.err
	}
	if len(w.ops) == MaxOps || len(w.arena)+len(key)+len(value) > cap(w.arena) {
		if err := w.apply(); err != nil {
			return err
		}
	}
	op := Op{Key: w.copy(key)}
	if value != nil {
		op.Value = w.copy(value)
	}
	w.ops = append(w.ops, op)
	return nil
}

func (w *Writer) copy(p []byte) []byte {
	n := len(w.arena)
	w.arena = append(w.arena, p...)
	return w.arena[n:len(w.arena):len(w.arena)]
}

func (w *Writer) apply() error {
	if len(w.ops) > 0 {
		w.err = w.kv.Update(w.ops)
	}
	w.ops, w.arena = w.ops[:0], w.arena[:0]
	return w.err
}

// Close applies what is left and syncs the KV, which stays open.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if err := w.apply(); err != nil {
		return err
	}
	w.err = w.kv.Sync()
	return w.err
}
