package backstore

import (
	"odx/backstore/codec"
	"odx/backstore/rows"
)

// createVolumeRecord makes a volume or a file.
//
// Layout: kind, its row.
type createVolumeRecord struct{ row rows.Volume }

func (r *createVolumeRecord) encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(recCreateVolume)
	e.Raw(r.row.Encode())
	return e.B, nil
}

func (r *createVolumeRecord) decode(d *codec.Decoder) { r.row = rows.ReadVolume(d) }

func (r *createVolumeRecord) apply(s *Store) error {
	s.enter(s.volumeOf(&r.row))
	return nil
}

// enter puts a volume that a record made into the tables.
func (s *Store) enter(v *Volume) {
	s.volumes[v.number], s.byName[v.key()] = v, v
	s.lastVolume = max(s.lastVolume, v.number)
}

// deleteVolumeRecord deletes a volume or a file.
//
// Layout: kind, uvarint volume.
type deleteVolumeRecord struct{ volume uint64 }

func (r *deleteVolumeRecord) encode() (head, data []byte) {
	return codec.Numbers(recDeleteVolume, r.volume), nil
}

func (r *deleteVolumeRecord) decode(d *codec.Decoder) { r.volume = d.Uint() }

func (r *deleteVolumeRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	return s.removeVolume(v)
}

// resizeVolumeRecord sets the size of a volume or a file.
//
// Layout: kind, uvarint volume, bytes.
type resizeVolumeRecord struct {
	volume uint64
	size   int64
}

func (r *resizeVolumeRecord) encode() (head, data []byte) {
	return codec.Numbers(recResizeVolume, r.volume, uint64(r.size)), nil
}

func (r *resizeVolumeRecord) decode(d *codec.Decoder) { r.volume, r.size = d.Uint(), d.Int63() }

func (r *resizeVolumeRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	if err := v.checkNewSize(r.size); err != nil {
		return err
	}
	return v.resize(r.size)
}

// cloneVolumeRecord makes a volume or a file that shares the tree of another.
//
// Layout: kind, uvarint volume, uvarint new volume, its id (16 bytes), name,
// flags, uvarint time of creation.
type cloneVolumeRecord struct {
	from, number uint64
	id           [16]byte
	name         string
	flags        byte
	created      int64
}

func (r *cloneVolumeRecord) encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(recCloneVolume)
	e.Uint(r.from)
	e.Uint(r.number)
	e.Raw(r.id[:])
	e.Bytes([]byte(r.name))
	e.Byte(r.flags)
	e.Uint(uint64(r.created))
	return e.B, nil
}

func (r *cloneVolumeRecord) decode(d *codec.Decoder) {
	r.from, r.number, r.id = d.Uint(), d.Uint(), d.ID16()
	r.name, r.flags, r.created = string(d.Bytes()), d.Byte(), d.Int63()
}

func (r *cloneVolumeRecord) apply(s *Store) error {
	from, err := s.volumeNumber(r.from)
	if err != nil {
		return err
	}
	v := s.newVolume(r.name)
	v.number, v.id, v.created = r.number, r.id, r.created
	v.setFlags(r.flags)
	if err := s.shareTree(from, v); err != nil {
		return err
	}
	s.enter(v)
	return nil
}

// renameFileRecord gives a file another name and deletes the file that has it.
// Stores are written with replaceFilesRecord, which can do the same.
//
// Layout: kind, uvarint file, new name.
type renameFileRecord struct {
	file uint64
	to   string
}

func (r *renameFileRecord) encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(recRenameFile)
	e.Uint(r.file)
	e.Bytes([]byte(r.to))
	return e.B, nil
}

func (r *renameFileRecord) decode(d *codec.Decoder) { r.file, r.to = d.Uint(), string(d.Bytes()) }

func (r *renameFileRecord) apply(s *Store) error {
	again := replaceFilesRecord{file: r.file, to: r.to}
	if old := s.byName[rows.Name{Name: r.to, File: true}]; old != nil && old.number != r.file {
		again.gone = []uint64{old.number}
	}
	return again.apply(s)
}

// replaceFilesRecord gives a file another name and deletes files: what had the
// name is one of them.
//
// Layout: kind, uvarint file, new name, uvarint how many are deleted, uvarint
// for each.
type replaceFilesRecord struct {
	file uint64
	to   string
	gone []uint64
}

func (r *replaceFilesRecord) encode() (head, data []byte) {
	var e codec.Encoder
	e.Byte(recReplaceFiles)
	e.Uint(r.file)
	e.Bytes([]byte(r.to))
	e.Uint(uint64(len(r.gone)))
	for _, number := range r.gone {
		e.Uint(number)
	}
	return e.B, nil
}

func (r *replaceFilesRecord) decode(d *codec.Decoder) {
	r.file, r.to = d.Uint(), string(d.Bytes())
	for range d.Count(1) {
		r.gone = append(r.gone, d.Uint())
	}
}

func (r *replaceFilesRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.file)
	if err != nil {
		return err
	}
	again := replacement{file: v, to: r.to}
	for _, number := range r.gone {
		old, err := s.volumeNumber(number)
		if err != nil {
			return err
		}
		again.gone = append(again.gone, old)
	}
	s.rename(&again)
	return s.dropAll(again.gone)
}
