package record

import (
	"fmt"

	"odx/backstore/codec"
	"odx/backstore/rows"
)

// CreateVolume makes a volume or a file.
//
// Layout: kind, its row.
type CreateVolume struct{ Row rows.Volume }

// Encode implements Record.
func (r *CreateVolume) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindCreateVolume)
	e.Raw(r.Row.Encode())
	return e.B, nil
}

func (r *CreateVolume) decode(d *codec.Decoder) { r.Row = rows.ReadVolume(d) }

// Apply implements Record.
func (r *CreateVolume) Apply(s State) error { return s.CreateVolume(r) }

// Changes implements Record.
func (r *CreateVolume) Changes(n *Names) []Change {
	n.Rename(r.Row.Number, r.Row.Key())
	return []Change{{Kind: "create volume", What: n.of(r.Row.Number)}}
}

// Describe implements Record.
func (r *CreateVolume) Describe() map[string]any {
	d := r.Row.Describe()
	d["kind"] = "create volume"
	return d
}

// DeleteVolume deletes a volume or a file.
//
// Layout: kind, uvarint volume.
type DeleteVolume struct{ Volume uint64 }

// Encode implements Record.
func (r *DeleteVolume) Encode() (head, data []byte) {
	return codec.Numbers(kindDeleteVolume, r.Volume), nil
}

func (r *DeleteVolume) decode(d *codec.Decoder) { r.Volume = d.Uint() }

// Apply implements Record.
func (r *DeleteVolume) Apply(s State) error { return s.DeleteVolume(r) }

// Changes implements Record.
func (r *DeleteVolume) Changes(n *Names) []Change {
	return []Change{{Kind: "delete volume", What: n.of(r.Volume)}}
}

// Describe implements Record.
func (r *DeleteVolume) Describe() map[string]any {
	return map[string]any{"kind": "delete volume", "volume": r.Volume}
}

// ResizeVolume sets the size of a volume or a file.
//
// Layout: kind, uvarint volume, bytes.
type ResizeVolume struct {
	Volume uint64
	Size   int64
}

// Encode implements Record.
func (r *ResizeVolume) Encode() (head, data []byte) {
	return codec.Numbers(kindResizeVolume, r.Volume, uint64(r.Size)), nil
}

func (r *ResizeVolume) decode(d *codec.Decoder) { r.Volume, r.Size = d.Uint(), d.Int63() }

// Apply implements Record.
func (r *ResizeVolume) Apply(s State) error { return s.ResizeVolume(r) }

// Changes implements Record.
func (r *ResizeVolume) Changes(n *Names) []Change {
	return []Change{{Kind: "resize volume", What: n.of(r.Volume), Detail: fmt.Sprintf("to %d bytes", r.Size)}}
}

// Describe implements Record.
func (r *ResizeVolume) Describe() map[string]any {
	return map[string]any{"kind": "resize volume", "volume": r.Volume, "size": r.Size}
}

// CloneVolume makes a volume or a file that shares the tree of another.
//
// Layout: kind, uvarint volume, uvarint new volume, its id (16 bytes), name,
// flags, uvarint time of creation.
type CloneVolume struct {
	From, Number uint64
	ID           [16]byte
	Name         string
	Flags        byte
	Created      int64
}

// Encode implements Record.
func (r *CloneVolume) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindCloneVolume)
	e.Uint(r.From)
	e.Uint(r.Number)
	e.Raw(r.ID[:])
	e.Bytes([]byte(r.Name))
	e.Byte(r.Flags)
	e.Uint(uint64(r.Created))
	return e.B, nil
}

func (r *CloneVolume) decode(d *codec.Decoder) {
	r.From, r.Number, r.ID = d.Uint(), d.Uint(), d.ID16()
	r.Name, r.Flags, r.Created = string(d.Bytes()), d.Byte(), d.Int63()
}

// Apply implements Record.
func (r *CloneVolume) Apply(s State) error { return s.CloneVolume(r) }

// Changes implements Record.
func (r *CloneVolume) Changes(n *Names) []Change {
	n.Rename(r.Number, rows.Name{Name: r.Name, File: r.Flags&rows.FlagFile != 0})
	return []Change{{Kind: "clone volume", What: n.of(r.Number), Detail: "of " + n.of(r.From)}}
}

// Describe implements Record.
func (r *CloneVolume) Describe() map[string]any {
	return map[string]any{"kind": "clone volume", "volume": r.From, "number": r.Number, "id": fmt.Sprintf("%x", r.ID), "name": r.Name, "created": r.Created}
}

// RenameFile gives a file another name and deletes the file that has it.
// Stores are written with ReplaceFiles, which can do the same.
//
// Layout: kind, uvarint file, new name.
type RenameFile struct {
	File uint64
	To   string
}

// Encode implements Record.
func (r *RenameFile) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindRenameFile)
	e.Uint(r.File)
	e.Bytes([]byte(r.To))
	return e.B, nil
}

func (r *RenameFile) decode(d *codec.Decoder) { r.File, r.To = d.Uint(), string(d.Bytes()) }

// Apply implements Record.
func (r *RenameFile) Apply(s State) error { return s.RenameFile(r) }

// Changes implements Record.
func (r *RenameFile) Changes(n *Names) []Change {
	old := n.Rename(r.File, rows.Name{Name: r.To, File: true})
	return []Change{{Kind: "rename file", What: old, Detail: "to " + r.To}}
}

// Describe implements Record.
func (r *RenameFile) Describe() map[string]any {
	return map[string]any{"kind": "rename file", "file": r.File, "to": r.To}
}

// ReplaceFiles gives a file another name and deletes files: what had the
// name is one of them. It also gives a volume another name, and deletes nothing then.
//
// Layout: kind, uvarint file, new name, uvarint how many are deleted, uvarint
// for each.
type ReplaceFiles struct {
	File uint64
	To   string
	Gone []uint64
}

// Encode implements Record.
func (r *ReplaceFiles) Encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(kindReplaceFiles)
	e.Uint(r.File)
	e.Bytes([]byte(r.To))
	e.Uint(uint64(len(r.Gone)))
	for _, number := range r.Gone {
		e.Uint(number)
	}
	return e.B, nil
}

func (r *ReplaceFiles) decode(d *codec.Decoder) {
	r.File, r.To = d.Uint(), string(d.Bytes())
	for range d.Count(1) {
		r.Gone = append(r.Gone, d.Uint())
	}
}

// Apply implements Record.
func (r *ReplaceFiles) Apply(s State) error { return s.ReplaceFiles(r) }

// Changes implements Record.
func (r *ReplaceFiles) Changes(n *Names) []Change {
	var all []Change
	for _, number := range r.Gone {
		all = append(all, Change{Kind: "replace files", What: n.of(number), Detail: "deleted"})
	}
	key := rows.Name{Name: r.To, File: true}
	if now, ok := n.key(r.File); ok {
		key.File = now.File
	}
	old := n.Rename(r.File, key)
	return append(all, Change{Kind: "replace files", What: old, Detail: "to " + r.To})
}

// Describe implements Record.
func (r *ReplaceFiles) Describe() map[string]any {
	return map[string]any{"kind": "replace files", "file": r.File, "to": r.To, "deleted": r.Gone}
}
