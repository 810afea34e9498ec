package meta

// Writer collects Ops and applies them in order, in pieces that fit one
// Update. Each piece is atomic, the whole is not. Not for concurrent use.
type Writer struct {
	kv KV
}

// NewWriter returns a Writer to kv.
func NewWriter(kv KV) *Writer { return &Writer{kv: kv} }

// Put sets a key. The slices are copied.
func (w *Writer) Put(key, value []byte) error { return w.kv.Update([]Op{{key, value}}) }

// Delete removes a key.
func (w *Writer) Delete(key []byte) error { return w.kv.Update([]Op{{key, nil}}) }

// Close applies what is left and syncs the KV, which stays open.
func (w *Writer) Close() error { return w.kv.Sync() }
